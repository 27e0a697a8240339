//! What the kernel is asked for: maps, programs, links, filters, devices, namespaces.

pub mod bpf;
pub mod bpffs;
pub mod btf;
pub mod capability;
pub mod clock;
pub mod clsact;
pub mod device;
pub mod elements;
pub mod guard;
pub mod netns;
pub mod outside;
pub mod program;
pub mod rcu;
pub mod rows;
pub mod tables;
pub mod tcx;
