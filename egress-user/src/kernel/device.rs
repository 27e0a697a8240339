//! The interfaces of a network namespace.

use std::future::Future;

use anyhow::{Context as _, Result, bail};
use egress_lang::datatype::interfaces::Interfaces;
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{LinkAttribute, LinkInfo, LinkLayerType};

/// Longest name of an interface: `IFNAMSIZ` without the zero byte.
const MAX_NAME: usize = 15;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name now.
    pub name: String,
    /// Its number, unique in the namespace.
    pub ifindex: u32,
    /// Bytes of its link header: 14 for Ethernet, 0 where there is none.
    pub link_len: u32,
    /// Its ARPHRD_ number.
    pub iftype: u16,
    /// `ip link set group`.
    pub group: u32,
    /// What its driver calls such devices: `veth`, `dummy`; not all do.
    pub kind: Option<String>,
}

/// An Ethernet device.
pub const ARPHRD_ETHER: u16 = 1;
/// A device without link header.
pub const ARPHRD_NONE: u16 = 0xfffe;

/// What a driver calls such devices.
fn kind(attribute: &LinkAttribute) -> Option<String> {
    let LinkAttribute::LinkInfo(infos) = attribute else {
        return None;
    };
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

/// All interfaces of a namespace at one moment.
#[derive(Debug, Clone, Default)]
pub struct Devices(Vec<Device>);

impl Devices {
    /// Asks the kernel for those of the namespace that this thread is in.
    ///
    /// # Errors
    ///
    /// Where netlink fails.
    pub fn read() -> Result<Self> {
        netlink(async |handle| {
            let mut found = Vec::new();
            let mut links = handle.link().get().execute();
            while let Some(message) = links.try_next().await? {
                let name = message
                    .attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        LinkAttribute::IfName(name) => Some(name.clone()),
                        _ => None,
                    });
                let Some(name) = name else { continue };
                let group = message
                    .attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        LinkAttribute::Group(group) => Some(*group),
                        _ => None,
                    });
                found.push(Device {
                    name,
                    ifindex: message.header.index,
                    link_len: link_len(message.header.link_layer_type),
                    iftype: message.header.link_layer_type.into(),
                    group: group.unwrap_or(0),
                    kind: message.attributes.iter().find_map(kind),
                });
            }
            Ok(Self(found))
        })
        .context("asking for the interfaces")
    }

    /// The interface with this name.
    pub fn by_name(&self, name: &str) -> Option<&Device> {
        self.0.iter().find(|device| device.name == name)
    }

    /// The interface with this number.
    pub fn by_ifindex(&self, ifindex: u32) -> Option<&Device> {
        self.0.iter().find(|device| device.ifindex == ifindex)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Device> {
        self.0.iter()
    }

    /// Their names and indexes.
    pub fn interfaces(&self) -> Interfaces {
        let each = self.iter();
        each.map(|device| (device.name.clone(), device.ifindex))
            .collect()
    }

    /// The interface with this name.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn get(&self, name: &str) -> Result<&Device> {
        if let Some(device) = self.by_name(name) {
            return Ok(device);
        }
        if name.is_empty() || name.len() > MAX_NAME {
            bail!("interface {name:?}: names have 1 to {MAX_NAME} characters");
        }
        bail!("interface {name}: there is none of this name; `ip link` lists them")
    }
}

impl FromIterator<Device> for Devices {
    fn from_iter<T: IntoIterator<Item = Device>>(devices: T) -> Self {
        Self(devices.into_iter().collect())
    }
}

/// By ARPHRD_ type: tc programs of these devices see a link header.
fn link_len(link_type: LinkLayerType) -> u32 {
    match link_type {
        LinkLayerType::Ether | LinkLayerType::Loopback => 14,
        _ => 0,
    }
}

/// Runs `work` over a netlink socket of the namespace that this thread is in.
///
/// # Errors
///
/// Those of `work`.
pub fn netlink<T, F>(work: impl FnOnce(rtnetlink::Handle) -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("opening a netlink socket")?;
        tokio::spawn(connection);
        work(handle).await
    })
}
