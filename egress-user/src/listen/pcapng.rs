//! Packets as a pcapng file (draft-ietf-opsawg-pcapng), with what is known of each as its comment.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use egress_common::event::Event;

/// Types of blocks.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

/// Options of all blocks.
const END: u16 = 0;
const COMMENT: u16 = 1;
/// Options of an interface description.
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
/// Options of a packet.
const EPB_FLAGS: u16 = 2;

/// `LINKTYPE_ETHERNET`, `LINKTYPE_RAW`.
const ETHERNET: u16 = 1;
const RAW: u16 = 101;

/// A file that is being written.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    /// Numbers of interfaces in the file.
    interfaces: BTreeMap<(u32, String, bool), u32>,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn new(mut to: W) -> io::Result<Self> {
        let mut body = Vec::new();
        body.extend(0x1a2b_3c4d_u32.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        // The length of the section is not known.
        body.extend(u64::MAX.to_le_bytes());
        block(&mut to, SECTION_HEADER, &body)?;
        to.flush()?;
        Ok(Self {
            to,
            interfaces: BTreeMap::new(),
        })
    }

    /// Writes a packet that was seen `time` nanoseconds after 1970, on the interface of this name. Packets
    /// of interfaces that are not `ethernet` are IP packets.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn packet(
        &mut self,
        event: &Event,
        bytes: &[u8],
        time: u64,
        (device, ethernet): (&str, bool),
        comment: &str,
    ) -> io::Result<()> {
        let interface = self.interface(event.ifindex, device, ethernet)?;
        let mut body = Vec::with_capacity(64 + bytes.len() + comment.len());
        for word in [
            interface,
            (time >> 32) as u32,
            time as u32,
            bytes.len() as u32,
            event.len,
        ] {
            body.extend(word.to_le_bytes());
        }
        padded(&mut body, bytes);
        option(&mut body, COMMENT, comment.as_bytes());
        // Inbound or outbound.
        let direction: u32 = if event.ingress == 0 { 2 } else { 1 };
        option(&mut body, EPB_FLAGS, &direction.to_le_bytes());
        option(&mut body, END, &[]);
        block(&mut self.to, ENHANCED_PACKET, &body)
    }

    /// Hands on what was written.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// The number of an interface; described where it is new.
    fn interface(&mut self, ifindex: u32, name: &str, ethernet: bool) -> io::Result<u32> {
        let key = (ifindex, name.to_owned(), ethernet);
        if let Some(&number) = self.interfaces.get(&key) {
            return Ok(number);
        }
        let mut body = Vec::new();
        body.extend((if ethernet { ETHERNET } else { RAW }).to_le_bytes());
        body.extend(0u16.to_le_bytes());
        // No limit that all packets share.
        body.extend(0u32.to_le_bytes());
        option(&mut body, IF_NAME, name.as_bytes());
        // Nanoseconds.
        option(&mut body, IF_TSRESOL, &[9]);
        option(&mut body, END, &[]);
        block(&mut self.to, INTERFACE_DESCRIPTION, &body)?;
        let number = self.interfaces.len() as u32;
        self.interfaces.insert(key, number);
        Ok(number)
    }
}

fn block(to: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = body.len() as u32 + 12;
    to.write_all(&kind.to_le_bytes())?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(body)?;
    to.write_all(&length.to_le_bytes())
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    padded(body, value);
}

/// To a multiple of four bytes.
fn padded(body: &mut Vec<u8>, value: &[u8]) {
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}
