//! Constants that the loader sets: the verifier knows them and removes what they switch off.

use core::ptr::read_volatile;

use egress_common::layout::{Clock, Settings, SocketPlaces};

/// In one, so that one register points to them all.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings::NONE;

macro_rules! setting {
    ($($name:ident)*) => {$(
        #[doc = concat!("[`Settings::", stringify!($name), "`].")]
        #[inline(always)]
        pub fn $name() -> u32 {
            // SAFETY: a static is always there; volatile, as the loader changes it.
            unsafe { read_volatile(&raw const SETTINGS.$name) }
        }
    )*};
}

/// [`Settings::socket`].
#[inline(always)]
pub fn socket() -> SocketPlaces {
    // SAFETY: as above.
    unsafe { read_volatile(&raw const SETTINGS.socket) }
}

/// Parts of a setting. They are read one by one: each read is an instruction that the packet takes.
macro_rules! parts {
    ($setting:ident: $($name:ident)*) => {
        #[doc = concat!("The parts of [`Settings::", stringify!($setting), "`].")]
        pub mod $setting {
            use super::{SETTINGS, read_volatile};
            $(
                #[doc = concat!("`", stringify!($name), "`.")]
                #[inline(always)]
                pub fn $name() -> u32 {
                    // SAFETY: as above.
                    unsafe { read_volatile(&raw const SETTINGS.$setting.$name) }
                }
            )*
        }
    };
}

parts! { device: dev group name kind dst class }
parts! { checksum: summed summed_shift valid valid_shift start offset head data }

/// [`Settings::clock`].
#[inline(always)]
pub fn clock() -> Clock {
    // SAFETY: as above.
    unsafe { read_volatile(&raw const SETTINGS.clock) }
}

setting! {
    features root table_mask cpu_mask counter_row counter_mask link_len uncounted_len ingress skip_value
    skip_mask state_mask
}
