//! The TC programs: entry points, maps, and the engine's two traits over them.
#![no_std]
#![no_main]

mod maps;
mod packet;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_loop, macros::classifier, programs::TcContext};
use aya_log_ebpf::warn;
use egress_common::{
    engine::{self, Outcome, State},
    layout::{MAX_ROUNDS, feature, slot},
    packet::{Headers, Packet as _},
};

use crate::{
    maps::{Tables, settings},
    packet::SkBuff,
};

/// The next tc program decides (`TCX_NEXT`, `TC_ACT_UNSPEC`).
const NEXT: i32 = -1;
/// The packet is dropped (`TCX_DROP`, `TC_ACT_SHOT`).
const SHOT: i32 = 2;

/// Egress: before all other tc programs.
#[classifier]
pub fn egress(ctx: TcContext) -> i32 {
    classify(&ctx)
}

/// Ingress: after all other tc programs.
#[classifier]
pub fn ingress(ctx: TcContext) -> i32 {
    classify(&ctx)
}

#[inline(always)]
fn classify(ctx: &TcContext) -> i32 {
    let skb = SkBuff::new(ctx);
    let mark = skb.mark();
    let skip_mask = settings::skip_mask();
    if skip_mask != 0 && mark & skip_mask == settings::skip_value() {
        skb.set_mark(mark & !skip_mask);
        maps::count(slot::SKIPPED, skb.len());
        return NEXT;
    }
    let Some(tables) = Tables::get() else {
        return NEXT;
    };
    maps::count(slot::SEEN, skb.len());
    let headers = Headers::find(&skb, settings::link_len(), settings::features());
    let mut state = State::new(settings::root());
    let mut outcome = engine::round(&skb, &tables, &headers, &mut state);
    if settings::features() & feature::ROUNDS != 0 && outcome == Outcome::Again {
        outcome = more_rounds(ctx, headers, state);
    }
    match outcome {
        Outcome::Pass => NEXT,
        Outcome::Drop => {
            maps::count(slot::DROPPED, skb.len());
            SHOT
        }
        Outcome::Again | Outcome::Broken => {
            maps::count(slot::BROKEN, skb.len());
            if settings::features() & feature::LOG != 0 {
                warn!(
                    ctx,
                    "tables ended in nowhere for a packet of {} bytes",
                    ctx.len()
                );
            }
            NEXT
        }
    }
}

/// What `bpf_loop` hands to each round.
struct Rounds {
    skb: *mut __sk_buff,
    headers: Headers,
    state: State,
    outcome: Outcome,
}

#[inline(always)]
fn more_rounds(ctx: &TcContext, headers: Headers, state: State) -> Outcome {
    let mut rounds = Rounds {
        skb: ctx.skb.skb,
        headers,
        state,
        outcome: Outcome::Again,
    };
    // SAFETY: the callback is called with the pointer given here, and only until this returns.
    unsafe {
        bpf_loop(
            MAX_ROUNDS,
            next_round as *mut _,
            (&raw mut rounds).cast(),
            0,
        );
    }
    rounds.outcome
}

/// Returns 1 to end the loop, 0 to go on.
unsafe extern "C" fn next_round(_index: u32, rounds: *mut core::ffi::c_void) -> i64 {
    // SAFETY: `more_rounds` passes a pointer to its `Rounds`.
    let rounds = unsafe { &mut *rounds.cast::<Rounds>() };
    let ctx = TcContext::new(rounds.skb);
    let skb = SkBuff::new(&ctx);
    let Some(tables) = Tables::get() else {
        return 1;
    };
    rounds.outcome = engine::round(&skb, &tables, &rounds.headers, &mut rounds.state);
    i64::from(rounds.outcome != Outcome::Again)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The programs' licence; some helpers want a GPL-compatible one.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
