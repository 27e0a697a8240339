//! Random rulesets and packets through every executor there is: the kernel's own nft egress hook, our
//! program on an interface, the engine in user space, and the rules one after the other.

// As in `common`: what cannot happen is a failure of the test.
#![allow(clippy::unwrap_used)]

pub mod case;
pub mod executors;
pub mod frames;
mod matches;
pub mod model;
pub mod packet;
pub mod rng;
pub mod rules;
pub mod shrink;
pub mod side;
pub mod socket;
pub mod test_run;
