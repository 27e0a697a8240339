//! Captures: pcap and pcapng in, pcap out
//! (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng).

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use pcap_parser::{
    Block, Linktype, PcapBlockOwned, PcapError, create_reader,
    traits::{PcapNGPacketBlock as _, PcapReaderIterator},
};

use super::Link;

/// Bytes read at a time.
const BUFFER: usize = 1 << 20;
/// Bytes that a record may have: those of pcapng that hold no packet can be large.
const MAX_RECORD: usize = 16 << 20;
/// Bytes that a packet may have (libpcap's `MAXIMUM_SNAPLEN`).
const MAX_PACKET: u32 = 262_144;
/// Interfaces of a pcapng section.
const MAX_INTERFACES: usize = 1 << 16;
/// Nanoseconds in a second.
const NANOS: u64 = 1_000_000_000;

/// A captured packet.
#[derive(Debug)]
pub struct Captured {
    /// What is before the network header.
    pub link: Link,
    /// Nanoseconds since 1970; as many packets have none, 0.
    pub time: u128,
    /// As many of its bytes as were captured.
    pub bytes: Vec<u8>,
    /// How many it had.
    pub length: u32,
}

/// A capture that is being read.
pub struct Capture {
    name: String,
    reader: Box<dyn PcapReaderIterator + Send>,
    /// Of the section of a pcapng file; the only one of a pcap file.
    interfaces: Vec<Interface>,
    /// Where a record of these bytes did not suffice, and nothing could be read any more.
    starved: Option<usize>,
    packets: u64,
}

/// An interface that packets were captured on.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link_type: i32,
    /// Of what time stamps count, how many make a second.
    units: u64,
    /// Seconds to add to time stamps.
    offset: i64,
    /// Bytes captured of a packet at most; 0 for all.
    snaplen: u32,
}

/// What a record says.
enum Record {
    Packet(Raw),
    Other,
}

/// A packet, before its interface is looked at.
struct Raw {
    interface: u32,
    /// In the interface's units.
    time: u64,
    bytes: Vec<u8>,
    length: u32,
}

impl Capture {
    /// Opens a file; standard input for `-`.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, or is no capture.
    pub fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Self::new("standard input", io::stdin());
        }
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| name.clone())?;
        if file.metadata().with_context(|| name.clone())?.is_dir() {
            bail!("{name}: is a directory");
        }
        Self::new(&name, file)
    }

    fn new(name: &str, input: impl Read + Send + 'static) -> Result<Self> {
        let reader = match create_reader(BUFFER, Whole(input)) {
            Ok(reader) => reader,
            Err(PcapError::Eof) => bail!("{name}: is empty, no pcap or pcapng"),
            Err(PcapError::ReadError) => bail!("{name}: cannot be read"),
            Err(PcapError::Incomplete(_)) => bail!("{name}: ends in the middle of its header"),
            Err(_) => bail!("{name}: is neither pcap nor pcapng"),
        };
        Ok(Self {
            name: name.to_owned(),
            reader,
            interfaces: Vec::new(),
            starved: None,
            packets: 0,
        })
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    ///
    /// Where the file is spoiled, or has packets that no hook of ours can see.
    pub fn next(&mut self) -> Result<Option<Captured>> {
        loop {
            let raw = match self.record() {
                Ok(None) => return Ok(None),
                Ok(Some(Record::Other)) => continue,
                Ok(Some(Record::Packet(raw))) => raw,
                Err(error) => {
                    let behind = self.packets;
                    return Err(error.context(format!("{}: behind packet {behind}", self.name)));
                }
            };
            self.packets += 1;
            let captured = self.captured(raw);
            let here = || format!("{}: packet {}", self.name, self.packets);
            return captured.with_context(here).map(Some);
        }
    }

    fn captured(&self, raw: Raw) -> Result<Captured> {
        let interface = self.interfaces.get(raw.interface as usize);
        let interface = interface.context("was captured on an interface that is not described")?;
        let length = raw.length.max(u32::try_from(raw.bytes.len())?);
        if length > MAX_PACKET {
            bail!("claims {length} bytes; packets have {MAX_PACKET} at most");
        }
        Ok(Captured {
            link: link(interface.link_type)?,
            time: interface.nanos(raw.time),
            bytes: raw.bytes,
            length,
        })
    }

    /// The next record; `None` at the end.
    fn record(&mut self) -> Result<Option<Record>> {
        loop {
            let needed = match self.reader.next() {
                Ok((size, block)) => {
                    let record = read(&mut self.interfaces, block)?;
                    self.reader.consume(size);
                    self.starved = None;
                    return Ok(Some(record));
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::UnexpectedEof) => bail!("the file ends in the middle of a record"),
                Err(PcapError::ReadError) => bail!("the file cannot be read"),
                Err(PcapError::BufferTooSmall) => true,
                Err(PcapError::Incomplete(_)) => false,
                Err(_) => bail!("this is no record of a capture"),
            };
            let there = self.reader.data().len();
            if self.reader.reader_exhausted() || self.starved == Some(there) {
                bail!("the file ends in the middle of a record");
            }
            if needed {
                let size = there.saturating_mul(2).max(2 * BUFFER);
                if size > MAX_RECORD || !self.reader.grow(size) {
                    bail!("a record claims more than {} MiB", (MAX_RECORD / 2) >> 20);
                }
            }
            self.starved = Some(there);
            if self.reader.refill().is_err() {
                bail!("the file cannot be read");
            }
        }
    }
}

/// What a record says; interfaces are noted.
fn read(interfaces: &mut Vec<Interface>, block: PcapBlockOwned<'_>) -> Result<Record> {
    let raw = match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let nanos = header.is_nanosecond_precision();
            interfaces.push(Interface {
                // The upper bits say whether frames end with a check sequence.
                link_type: header.network.0 & 0x3ff_ffff,
                units: if nanos { NANOS } else { 1_000_000 },
                offset: 0,
                snaplen: header.snaplen,
            });
            return Ok(Record::Other);
        }
        PcapBlockOwned::Legacy(packet) => {
            let units = interfaces.first().map_or(NANOS, |it| it.units);
            let seconds = u64::from(packet.ts_sec).saturating_mul(units);
            Raw {
                interface: 0,
                time: seconds.saturating_add(packet.ts_usec.into()),
                bytes: bounded(packet.data)?,
                length: packet.origlen,
            }
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            return Ok(Record::Other);
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            if interfaces.len() >= MAX_INTERFACES {
                bail!("more than {MAX_INTERFACES} interfaces");
            }
            let Linktype(link_type) = interface.linktype;
            let units = interface.ts_resolution().filter(|&units| units > 0);
            interfaces.push(Interface {
                link_type,
                units: units.context("a resolution of time stamps that there is not")?,
                offset: interface.ts_offset(),
                snaplen: interface.snaplen,
            });
            return Ok(Record::Other);
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            if packet.caplen as usize > packet.data.len() {
                bail!("a packet is longer than its record");
            }
            Raw {
                interface: packet.if_id,
                time: u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low),
                bytes: bounded(packet.packet_data())?,
                length: packet.origlen,
            }
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            let data = packet.packet_data();
            let snaplen = interfaces.first().map_or(0, |it| it.snaplen);
            let end = if snaplen == 0 {
                data.len()
            } else {
                snaplen as usize
            };
            Raw {
                interface: 0,
                time: 0,
                bytes: bounded(data.get(..end).unwrap_or(data))?,
                length: packet.origlen,
            }
        }
        PcapBlockOwned::NG(_) => return Ok(Record::Other),
    };
    Ok(Record::Packet(raw))
}

fn bounded(data: &[u8]) -> Result<Vec<u8>> {
    if data.len() > MAX_PACKET as usize {
        let length = data.len();
        bail!("a packet of {length} bytes; packets have {MAX_PACKET} at most");
    }
    Ok(data.to_vec())
}

/// LINKTYPE_ numbers, and those that DLT_RAW has on some systems.
fn link(link_type: i32) -> Result<Link> {
    match link_type {
        1 => Ok(Link::Ethernet),
        12 | 14 | 101 | 228 | 229 => Ok(Link::RawIp),
        other => bail!("link type {other}; only Ethernet (1) and raw IP (101, 228, 229) are read"),
    }
}

impl Interface {
    /// Nanoseconds since 1970.
    fn nanos(&self, time: u64) -> u128 {
        let nanos = u128::from(time) * u128::from(NANOS) / u128::from(self.units.max(1));
        let offset = u128::from(self.offset.unsigned_abs()) * u128::from(NANOS);
        if self.offset < 0 {
            nanos.saturating_sub(offset)
        } else {
            nanos.saturating_add(offset)
        }
    }
}

/// Fills what it is given, as far as the input goes: pipes give less at a time.
struct Whole<R>(R);

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// A pcap file that is being written: beside the place where it is to be, until it is whole.
#[derive(Debug)]
pub struct Output {
    name: String,
    file: BufWriter<File>,
    /// What it is called until then, and what it is to be called.
    rename: Option<(PathBuf, PathBuf)>,
    started: bool,
}

impl Output {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let special = fs::metadata(path).is_ok_and(|found| !found.is_file());
        let (file, rename) = if special {
            (File::options().write(true).open(path), None)
        } else {
            let mut part = path.as_os_str().to_owned();
            part.push(format!(".{}.part", std::process::id()));
            let part = PathBuf::from(part);
            (File::create(&part), Some((part, path.to_owned())))
        };
        Ok(Self {
            file: BufWriter::new(file.with_context(|| name.clone())?),
            name,
            rename,
            started: false,
        })
    }

    /// Writes a packet; of the first one, its link type is that of the file.
    ///
    /// # Errors
    ///
    /// Where the disk is full.
    pub fn write(&mut self, packet: &Captured) -> Result<()> {
        self.start(packet.link)
            .and_then(|()| {
                let seconds = packet.time / u128::from(NANOS);
                let nanos = packet.time % u128::from(NANOS);
                let fields = [
                    u32::try_from(seconds).unwrap_or(u32::MAX),
                    u32::try_from(nanos).unwrap_or(0),
                    u32::try_from(packet.bytes.len()).unwrap_or(MAX_PACKET),
                    packet.length,
                ];
                self.file
                    .write_all(fields.map(u32::to_ne_bytes).as_flattened())?;
                self.file.write_all(&packet.bytes)
            })
            .with_context(|| self.name.clone())
    }

    fn start(&mut self, link: Link) -> io::Result<()> {
        if self.started {
            return Ok(());
        }
        self.started = true;
        let link_type = match link {
            Link::Ethernet => 1,
            Link::RawIp => 101,
        };
        // Nanoseconds; version 2.4.
        let version = [2u16, 4].map(u16::to_ne_bytes);
        let fields = [0, 0, MAX_PACKET, link_type].map(u32::to_ne_bytes);
        self.file.write_all(&0xa1b2_3c4d_u32.to_ne_bytes())?;
        self.file.write_all(version.as_flattened())?;
        self.file.write_all(fields.as_flattened())
    }

    /// Makes it whole and gives it its name.
    ///
    /// # Errors
    ///
    /// Where the disk is full.
    pub fn finish(mut self, link: Link) -> Result<()> {
        let written = self.start(link).and_then(|()| self.file.flush());
        let done = written.and_then(|()| match &self.rename {
            Some((part, path)) => fs::rename(part, path),
            None => Ok(()),
        });
        done.with_context(|| self.name.clone())?;
        self.rename = None;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((part, _)) = &self.rename {
            let _ = fs::remove_file(part);
        }
    }
}
