//! Filters of the clsact qdisc, for kernels without TCX. They cannot be pinned: which are ours is
//! written down in the generation, and they are known by their program.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use anyhow::{Context as _, Result};
use aya::programs::{
    Link as _, SchedClassifier,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
};
use egress_lang::checked::Hook;
use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcMessage, TcOption},
    },
};
use serde::{Deserialize, Serialize};

use crate::kernel::{device::netlink, tcx::attach_type};

/// Our handle within a priority.
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// Ingress: behind what others put there.
const INGRESS_PRIORITY: u16 = 0xc000 - 1;

/// The handle of every clsact qdisc (`TC_H_CLSACT`).
const QDISC: u32 = 0xffff_0000;

/// Where a filter stands among those of its hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Smaller runs first.
    pub priority: u16,
}

/// A filter of any kind that is on a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Smaller runs first.
    pub priority: u16,
    /// Within the priority.
    pub handle: u32,
    /// Of a BPF filter: its program.
    pub program_id: Option<u32>,
}

/// The filters on one hook of an interface; none where there is no clsact qdisc.
///
/// # Errors
///
/// Where netlink fails.
pub fn filters(ifindex: u32, hook: Hook) -> Result<Vec<Filter>> {
    netlink(async |handle| {
        let mut request = handle.traffic_filter(ifindex.cast_signed()).get();
        request = match hook {
            Hook::Egress => request.egress(),
            Hook::Ingress => request.ingress(),
        };
        let mut found = Vec::new();
        let mut messages = request.execute();
        loop {
            match messages.try_next().await {
                Ok(Some(message)) => found.extend(filter(&message)),
                Ok(None) => break,
                // Without a qdisc some kernels say so.
                Err(error) if is_missing(&error) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    })
    .context("asking for the tc filters")
}

fn is_missing(error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message)
        if matches!(-message.raw_code(), libc::EINVAL | libc::ENOENT | libc::ENODEV))
}

/// A message of a filter dump; one without a handle stands for a whole priority.
fn filter(message: &TcMessage) -> Option<Filter> {
    let handle = u32::from(message.header.handle);
    if handle == 0 {
        return None;
    }
    let options = message
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        });
    let program_id = options.flatten().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    });
    Some(Filter {
        priority: (message.header.info >> 16) as u16,
        handle,
        program_id,
    })
}

/// Whether the interface has a clsact qdisc.
///
/// # Errors
///
/// Where netlink fails.
pub fn has_qdisc(ifindex: u32) -> Result<bool> {
    netlink(async |handle| {
        let mut messages = handle.qdisc().get().index(ifindex.cast_signed()).execute();
        while let Some(message) = messages.try_next().await? {
            if is_clsact(&message, ifindex) {
                return Ok(true);
            }
        }
        Ok(false)
    })
    .context("asking for the qdiscs")
}

fn is_clsact(message: &TcMessage, ifindex: u32) -> bool {
    let clsact =
        |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "clsact");
    message.header.index == ifindex.cast_signed() && message.attributes.iter().any(clsact)
}

/// Where our filter goes: before all others on egress, behind them on ingress.
///
/// On egress the first priority may be taken by a filter that only runs before ours because of that;
/// then ours stands as early as it can.
pub fn place(hook: Hook, others: &[Filter]) -> Place {
    let taken = |priority: &u16| others.iter().any(|filter| filter.priority == *priority);
    let priority = match hook {
        Hook::Egress => (1..=u16::MAX).find(|priority| !taken(priority)),
        Hook::Ingress => {
            let last = others.iter().map(|filter| filter.priority).max();
            let behind = last.map_or(1, |last| last.saturating_add(1));
            (behind.max(INGRESS_PRIORITY)..=u16::MAX).find(|priority| !taken(priority))
        }
    };
    Place {
        priority: priority.unwrap_or(u16::MAX),
    }
}

/// Makes the clsact qdisc.
///
/// # Errors
///
/// Where the kernel refuses, as it does where there is one.
pub fn create_qdisc(interface: &str) -> Result<()> {
    qdisc_add_clsact(interface).with_context(|| {
        format!(
            "interface {interface}: adding the clsact qdisc (an ingress qdisc stands in its way; \
             `tc qdisc show dev {interface}` shows it)"
        )
    })
}

/// Removes the clsact qdisc, and every filter that is in it.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn delete_qdisc(ifindex: u32) -> Result<()> {
    netlink(async |handle| {
        let mut request = handle.qdisc().del(ifindex.cast_signed());
        let header = &mut request.message_mut().header;
        header.handle = QDISC.into();
        header.parent = (QDISC | 0xfff1).into();
        Ok(request.execute().await?)
    })
    .context("removing the clsact qdisc")
}

/// Adds our filter.
///
/// # Errors
///
/// Where the kernel refuses, as it does where there is one in this place.
pub fn create(
    program: &mut SchedClassifier,
    interface: &str,
    hook: Hook,
    place: Place,
) -> Result<()> {
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: place.priority,
        handle: HANDLE,
        classid: None,
    });
    let id = program.attach_with_options(interface, attach_type(hook), options)?;
    // Dropping this would remove the filter.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// Adds a filter for egress that decides by itself (`direct-action`) what becomes of a packet. It keeps its
/// program.
///
/// # Errors
///
/// Where the kernel refuses, as it does where there is one in this place.
pub fn create_for(program: BorrowedFd<'_>, ifindex: u32, name: &str, place: Place) -> Result<()> {
    /// `ETH_P_ALL`.
    const ALL: u16 = 3;
    /// `TC_H_MIN_EGRESS`.
    const EGRESS: u32 = 0xfff3;
    let number = u32::try_from(program.as_raw_fd()).context("a program's descriptor")?;
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = (QDISC | EGRESS).into();
    message.header.info = u32::from(place.priority) << 16 | u32::from(ALL.to_be());
    message.attributes = vec![
        TcAttribute::Kind("bpf".to_owned()),
        TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(number)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]),
    ];
    netlink(async |mut handle| {
        let message = RouteNetlinkMessage::NewTrafficFilter(message);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE;
        let mut answers = handle.request(request)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload {
                return Err(rtnetlink::Error::NetlinkError(error).into());
            }
        }
        Ok(())
    })
    .context("adding a tc filter")
}

/// Makes our filter run `program` in place of the one it runs now.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn replace(
    program: &mut SchedClassifier,
    interface: &str,
    hook: Hook,
    place: Place,
) -> Result<()> {
    let id = program.attach_to_link(link(interface, hook, place)?)?;
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// Removes our filter.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn delete(interface: &str, hook: Hook, place: Place) -> Result<()> {
    link(interface, hook, place)?.detach()?;
    Ok(())
}

/// Removes a BPF filter, whoever made it.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn delete_filter(interface: &str, hook: Hook, filter: &Filter) -> Result<()> {
    SchedClassifierLink::attached(
        interface,
        attach_type(hook),
        filter.priority,
        filter.handle.into(),
        None,
    )?
    .detach()?;
    Ok(())
}

fn link(interface: &str, hook: Hook, place: Place) -> Result<SchedClassifierLink> {
    Ok(SchedClassifierLink::attached(
        interface,
        attach_type(hook),
        place.priority,
        HANDLE,
        None,
    )?)
}

impl Place {
    /// The filter that stands here.
    pub fn find(self, filters: &[Filter]) -> Option<&Filter> {
        filters
            .iter()
            .find(|filter| filter.priority == self.priority && filter.handle == u32::from(HANDLE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(priority: u16) -> Filter {
        Filter {
            priority,
            handle: 1,
            program_id: None,
        }
    }

    #[test]
    fn places() {
        assert_eq!(place(Hook::Egress, &[]).priority, 1);
        assert_eq!(place(Hook::Egress, &[at(1), at(2)]).priority, 3);
        assert_eq!(place(Hook::Egress, &[at(2)]).priority, 1);
        assert_eq!(place(Hook::Ingress, &[]).priority, INGRESS_PRIORITY);
        assert_eq!(place(Hook::Ingress, &[at(0xd000)]).priority, 0xd001);
    }
}
