//! What is not kept with the packet: its socket, device and route, and the clock, as nf_tables looks at them
//! (net/netfilter/nft_meta.c).

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_xfrm_state},
    helpers::generated::{
        bpf_ktime_get_ns, bpf_ktime_get_tai_ns, bpf_probe_read_kernel, bpf_probe_read_kernel_str,
        bpf_skb_get_xfrm_state,
    },
};
use egress_common::layout::{feature, meta};

use crate::{
    loads::found,
    settings::{self, device},
};

/// `TCP_TIME_WAIT`: what is left of a connection.
const TIME_WAIT: u8 = 6;
/// `TCP_NEW_SYN_RECV`: what is not a connection yet.
const NEW_SYN_RECV: u8 = 12;

/// What a number in [`meta`] names of the socket or the clock: a function of its own to the verifier. Returns whether it
/// wrote `value`. In several functions, as the stack of one would be too large for Linux 6.1.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn load_outside(skb: *mut __sk_buff, what: u32, value: *mut u64) -> u32 {
    let (features, what) = (settings::features(), what as u8);
    let loaded = if what >= meta::TIME {
        if features & feature::CLOCK == 0 {
            return 0;
        }
        Some(match what {
            // SAFETY: a helper without arguments.
            meta::UPTIME => unsafe { bpf_ktime_get_ns() },
            _ => {
                // SAFETY: likewise.
                let tai = unsafe { bpf_ktime_get_tai_ns() };
                settings::clock().value(what, tai)
            }
        })
    } else {
        if features & feature::SOCKET == 0 {
            return 0;
        }
        of_socket(skb, what).map(u64::from)
    };
    found(loaded, value)
}

/// Whether the packet has a security path (`secpath_exists()`): then it has a state that can be told.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn came_by_ipsec(skb: *mut __sk_buff) -> u32 {
    if settings::features() & feature::IPSEC == 0 {
        return 0;
    }
    let mut state = MaybeUninit::<bpf_xfrm_state>::uninit();
    // SAFETY: the helper writes as many bytes as there are, whether it finds a state or not.
    let error = unsafe {
        bpf_skb_get_xfrm_state(
            skb.cast(),
            0,
            state.as_mut_ptr(),
            size_of::<bpf_xfrm_state>() as u32,
            0,
        )
    };
    u32::from(error == 0)
}

/// `SKB_DST_NOREF` (linux/skbuff.h): a bit in the pointer to the route.
const NOREF: u64 = 1;

/// The same of what is of the device or the route.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn load_device(skb: *mut __sk_buff, what: u32, value: *mut u64) -> u32 {
    if settings::features() & feature::DEVICE == 0 {
        return 0;
    }
    found(of_device(skb, what as u8), value)
}

/// The group, the type or the name of the device, or the realm of the route.
#[inline(always)]
fn of_device(skb: *mut __sk_buff, what: u8) -> Option<u64> {
    // What programs are called with is the packet itself.
    let skb = skb as u64;
    if what == meta::RTCLASSID {
        let dst = pointer(skb, device::dst())? & !NOREF;
        return match device::class() {
            u32::MAX => None,
            class => read::<u32>(at(dst, class)).map(u64::from),
        };
    }
    let dev = pointer(skb, device::dev())?;
    if what == meta::IFGROUP {
        return read::<u32>(at(dev, device::group())).map(u64::from);
    }
    if what == meta::IFTYPE {
        return read::<u16>(at(dev, device::kind())).map(u64::from);
    }
    // Zeros behind the name, whatever is there (`nft_meta_store_ifname()`).
    let mut name = [0u64; 2];
    // SAFETY: the helper writes at most as many bytes as there are, and reads from anywhere.
    let error = unsafe {
        bpf_probe_read_kernel_str(
            (&raw mut name).cast(),
            size_of_val(&name) as u32,
            at(dev, device::name()) as *const _,
        )
    };
    let [first, last] = name;
    let half = if what == meta::NAME { first } else { last };
    (error > 0).then_some(u64::from_be(half))
}

/// `nft_meta_get_eval_skugid()` and `nft_meta_get_eval_cgroup()`.
#[inline(always)]
fn of_socket(skb: *mut __sk_buff, what: u8) -> Option<u32> {
    let places = settings::socket();
    // SAFETY: the context pointer is valid for the whole run of the program.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    // The verifier would not let us go on from this pointer as we like: what is read back is a number.
    let mut sk = read::<u64>(ptr::from_ref(&sk) as u64)?;
    let mut state = read::<u8>(at(sk, places.state))?;
    if state == NEW_SYN_RECV {
        sk = read::<u64>(at(sk, places.listener))?;
        state = read::<u8>(at(sk, places.state))?;
    }
    if sk == 0 || state == TIME_WAIT || state == NEW_SYN_RECV {
        return None;
    }
    let net = read::<u64>(at(sk, places.net))?;
    let cookie = u64::from(places.cookie_high) << 32 | u64::from(places.cookie_low);
    if read::<u64>(at(net, places.net_cookie))? != cookie {
        return None;
    }
    if what == meta::CGROUP {
        return match places.class {
            u32::MAX => None,
            class => read::<u32>(at(sk, class)),
        };
    }
    let socket = pointer(sk, places.socket)?;
    let file = pointer(socket, places.file)?;
    let cred = pointer(file, places.cred)?;
    let id = if what == meta::SKUID {
        places.uid
    } else {
        places.gid
    };
    read::<u32>(at(cred, id))
}

#[inline(always)]
pub fn at(structure: u64, offset: u32) -> u64 {
    structure.wrapping_add(offset.into())
}

/// A pointer that is not null.
#[inline(always)]
fn pointer(structure: u64, offset: u32) -> Option<u64> {
    read::<u64>(at(structure, offset)).filter(|&pointer| pointer != 0)
}

/// Kernel memory; `None` where there is none.
#[inline(always)]
pub fn read<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the helper writes as many bytes as the value has, and reads from anywhere.
    let error = unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            address as *const _,
        )
    };
    (error == 0).then_some(value)
}
