//! The TC programs: entry points, maps, and the engine's two traits over them.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod checksums;
mod elements;
mod events;
mod functions;
mod loads;
mod maps;
mod outside;
mod packet;
mod reject;
mod settings;
mod tables;
mod tags;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_loop, macros::classifier, programs::TcContext};
use aya_log_ebpf::warn;
use egress_common::{
    engine::{self, Outcome, State},
    layout::{MAX_ROUNDS, feature, own},
    packet::{Headers, Packet as _},
};

use crate::{
    maps::Own,
    packet::SkBuff,
    tables::{ANY, Tables},
};

/// The next tc program decides (`TCX_NEXT`, `TC_ACT_UNSPEC`).
const NEXT: i32 = -1;
/// The packet is dropped (`TCX_DROP`, `TC_ACT_SHOT`).
const SHOT: i32 = 2;
/// The packet goes where a helper was told (`TCX_REDIRECT`, `TC_ACT_REDIRECT`).
const REDIRECTED: i32 = 7;

/// Egress: before all other tc programs. Any ruleset of one round that does not act.
#[classifier]
pub fn egress(ctx: TcContext) -> i32 {
    classify::<ANY, ONE>(&ctx)
}

/// Ingress: after all other tc programs. Any ruleset of one round that does not act.
#[classifier]
pub fn ingress(ctx: TcContext) -> i32 {
    classify::<ANY, ONE>(&ctx)
}

/// Egress, for rulesets of one round that act. A program of its own, as the verifier counts the stack of code
/// that never runs, too.
#[classifier]
pub fn egress_acts(ctx: TcContext) -> i32 {
    classify::<ANY, ACTS>(&ctx)
}

/// Ingress, likewise.
#[classifier]
pub fn ingress_acts(ctx: TcContext) -> i32 {
    classify::<ANY, ACTS>(&ctx)
}

/// Egress, for rulesets that need more than one round.
#[classifier]
pub fn egress_rounds(ctx: TcContext) -> i32 {
    classify::<ANY, ROUNDS>(&ctx)
}

/// Ingress, likewise.
#[classifier]
pub fn ingress_rounds(ctx: TcContext) -> i32 {
    classify::<ANY, ROUNDS>(&ctx)
}

/// Egress, for rulesets of [`feature::LEAN`].
#[classifier]
pub fn egress_lean(ctx: TcContext) -> i32 {
    classify::<{ feature::LEAN }, ONE>(&ctx)
}

/// Ingress, likewise.
#[classifier]
pub fn ingress_lean(ctx: TcContext) -> i32 {
    classify::<{ feature::LEAN }, ONE>(&ctx)
}

/// Egress, for rulesets of [`feature::LEAN`] that act.
#[classifier]
pub fn egress_lean_acts(ctx: TcContext) -> i32 {
    classify::<{ feature::LEAN | feature::SET | feature::ACT }, ACTS>(&ctx)
}

/// Ingress, likewise.
#[classifier]
pub fn ingress_lean_acts(ctx: TcContext) -> i32 {
    classify::<{ feature::LEAN | feature::SET | feature::ACT }, ACTS>(&ctx)
}

/// Egress, for rulesets that test nothing: one action list for all packets.
#[classifier]
pub fn egress_list(ctx: TcContext) -> i32 {
    classify::<{ feature::COUNTER }, ONE>(&ctx)
}

/// Ingress, likewise.
#[classifier]
pub fn ingress_list(ctx: TcContext) -> i32 {
    classify::<{ feature::COUNTER }, ONE>(&ctx)
}

/// Egress, for rulesets that do nothing, where there is no skip mark.
#[classifier]
pub fn egress_idle(_ctx: TcContext) -> i32 {
    idle()
}

/// Ingress, likewise.
#[classifier]
pub fn ingress_idle(_ctx: TcContext) -> i32 {
    idle()
}

#[inline(always)]
fn idle() -> i32 {
    Own::of(packet::cpu() & (own::MIN_ROWS - 1)).count(own::SEEN);
    NEXT
}

/// One round, without acts.
const ONE: u32 = 0;
/// One round, with acts.
const ACTS: u32 = 1;
/// Any number of rounds.
const ROUNDS: u32 = 2;

#[inline(always)]
fn classify<const FEATURES: u32, const WAY: u32>(ctx: &TcContext) -> i32 {
    let skb = SkBuff::new(ctx);
    let skip_mask = settings::skip_mask();
    let row = maps::cpu_row();
    let own = Own::of(row);
    if skip_mask != 0 {
        let mark = skb.mark();
        if mark & skip_mask == settings::skip_value() {
            skb.set_mark(mark & !skip_mask);
            own.count(own::SKIPPED);
            return NEXT;
        }
    }
    own.count(own::SEEN);
    let tables = Tables::<FEATURES>::with_counters(row);
    let (headers, root) = engine::enter(&skb, &tables);
    let tagging = WAY != ONE && tags::may_be();
    if tagging {
        tags::begin();
    }
    let mut outcome = match WAY {
        ROUNDS => rounds(&skb, ctx, headers, root),
        way => engine::only_round(&skb, &tables, headers, root, way == ACTS),
    };
    let leaves = matches!(outcome, Outcome::Pass | Outcome::Redirect);
    if tagging && leaves && tags::put_tag(ctx.skb.skb) == 0 {
        outcome = Outcome::Drop;
    }
    match outcome {
        Outcome::Pass => NEXT,
        Outcome::Drop => {
            own.count(own::DROPPED);
            SHOT
        }
        Outcome::Redirect => {
            own.count(own::SENT);
            REDIRECTED
        }
        Outcome::Answer => {
            own.count(own::DROPPED);
            REDIRECTED
        }
        Outcome::Again | Outcome::Act | Outcome::Broken => {
            own.count(own::BROKEN);
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
    state: State,
    headers: u32,
    outcome: u32,
}

#[inline(always)]
fn rounds(packet: &SkBuff<'_>, ctx: &TcContext, headers: Headers, root: u32) -> Outcome {
    let state = State::new(packet, root);
    let mut rounds = Rounds {
        skb: ctx.skb.skb,
        state,
        headers: headers.to_bits(),
        outcome: AGAIN,
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
    match rounds.outcome {
        PASS => Outcome::Pass,
        DROP => Outcome::Drop,
        REDIRECT => Outcome::Redirect,
        ANSWER => Outcome::Answer,
        _ => Outcome::Broken,
    }
}

/// Returns 1 to end the loop, 0 to go on.
unsafe extern "C" fn next_round(_index: u32, rounds: *mut core::ffi::c_void) -> i64 {
    // SAFETY: `rounds` passes a pointer to its `Rounds`.
    let rounds = unsafe { &mut *rounds.cast::<Rounds>() };
    // SAFETY: the state is a field of what this callback alone uses.
    rounds.outcome = unsafe { round(rounds.skb, rounds.headers, &raw mut rounds.state) };
    if rounds.outcome == ACT {
        let ctx = TcContext::new(rounds.skb);
        let headers = Headers::from_bits(rounds.headers);
        let tables = Tables::<ANY>::get();
        rounds.outcome = number(engine::act(
            &SkBuff::new(&ctx),
            &tables,
            headers,
            &mut rounds.state,
        ));
    }
    if rounds.outcome == AGAIN { 0 } else { 1 }
}

/// How the verifier sees an outcome.
#[inline(always)]
fn number(outcome: Outcome) -> u32 {
    match outcome {
        Outcome::Again => AGAIN,
        Outcome::Act => ACT,
        Outcome::Pass => PASS,
        Outcome::Drop => DROP,
        Outcome::Redirect => REDIRECT,
        Outcome::Answer => ANSWER,
        Outcome::Broken => BROKEN,
    }
}

/// [`Outcome::Again`] as a number.
const AGAIN: u32 = 0;
/// [`Outcome::Pass`] as a number.
const PASS: u32 = 1;
/// [`Outcome::Drop`] as a number.
const DROP: u32 = 2;
/// [`Outcome::Broken`] as a number.
const BROKEN: u32 = 3;
/// [`Outcome::Act`] as a number.
const ACT: u32 = 5;
/// [`Outcome::Redirect`] as a number.
const REDIRECT: u32 = 4;
/// [`Outcome::Answer`] as a number.
const ANSWER: u32 = 6;

/// One round: a function of its own to the verifier, which looks at it once, not once for each
/// state that the rounds before may have left.
///
/// # Safety
///
/// `state` is null or points to a state that nobody else uses.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn round(skb: *mut __sk_buff, headers: u32, state: *mut State) -> u32 {
    // The verifier takes nothing for granted here.
    if state.is_null() {
        return BROKEN;
    }
    // SAFETY: not null, and what the caller promises.
    let state = unsafe { &mut *state };
    let ctx = TcContext::new(skb);
    let tables = Tables::<ANY>::with_counters(maps::cpu_row());
    let headers = Headers::from_bits(headers);
    number(engine::round(&SkBuff::new(&ctx), &tables, headers, state))
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
