//! Map layouts and the matching engine, shared by the kernel program and user space.
#![no_std]
