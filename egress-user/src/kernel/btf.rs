//! Where the running kernel keeps members of its structures (`/sys/kernel/btf/vmlinux`).

use std::fs;

use anyhow::{Context as _, Result, bail};

/// The kernel's types (Documentation/bpf/btf.rst).
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    /// Where the entry of each type is; type 0 is none.
    types: Vec<usize>,
    /// Where names start.
    strings: usize,
}

const MAGIC: u16 = 0xeb9f;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
/// Bytes of an entry, without what follows it by its kind.
const ENTRY: usize = 12;
/// Bytes of a member.
const MEMBER: usize = 12;

impl Btf {
    /// The running kernel's.
    ///
    /// # Errors
    ///
    /// Where the kernel was built without (`CONFIG_DEBUG_INFO_BTF`).
    pub fn of_kernel() -> Result<Self> {
        const PATH: &str = "/sys/kernel/btf/vmlinux";
        let bytes = fs::read(PATH).with_context(|| format!("reading {PATH}"))?;
        Self::parse(bytes).with_context(|| format!("reading {PATH}"))
    }

    fn parse(bytes: Vec<u8>) -> Result<Self> {
        let mut btf = Self {
            bytes,
            types: vec![0],
            strings: 0,
        };
        if btf.word(0)? as u16 != MAGIC {
            bail!("this is no BTF of this machine");
        }
        let header = btf.word(4)? as usize;
        let start = header + btf.word(8)? as usize;
        let end = start + btf.word(12)? as usize;
        btf.strings = header + btf.word(16)? as usize;
        let mut at = start;
        while at < end {
            btf.types.push(at);
            let (kind, count) = btf.kind(at)?;
            at += ENTRY + following(kind, count)?;
        }
        Ok(btf)
    }

    /// Bytes from the start of a structure to a member, to one of the member's, and so on.
    ///
    /// # Errors
    ///
    /// Where this kernel has no such structure or member.
    pub fn offset(&self, structure: &str, path: &[&str]) -> Result<u32> {
        Ok(self.bit_offset(structure, path)? / 8)
    }

    /// The same in bits, of members of less than a byte.
    ///
    /// # Errors
    ///
    /// Likewise.
    pub fn bit_offset(&self, structure: &str, path: &[&str]) -> Result<u32> {
        let named = |&&at: &&usize| {
            self.kind(at).is_ok_and(|(kind, _)| kind == KIND_STRUCT)
                && self
                    .word(at)
                    .is_ok_and(|name| self.is_name(name, structure))
        };
        let found = self.types.iter().skip(1).find(named);
        let mut at = *found.with_context(|| format!("this kernel has no struct {structure}"))?;
        let mut offset = 0;
        for name in path {
            let member = self.member(at, name)?;
            let missing = || format!("this kernel's struct {structure} has no {}", path.join("."));
            let (bits, of) = member.with_context(missing)?;
            offset += bits;
            at = self.resolved(of)?;
        }
        Ok(offset)
    }

    /// The offset in bits of a member and its type, looked for in nameless members, too.
    fn member(&self, at: usize, name: &str) -> Result<Option<(u32, u32)>> {
        let (kind, count) = self.kind(at)?;
        if !matches!(kind, KIND_STRUCT | KIND_UNION) {
            return Ok(None);
        }
        let has_bitfields = self.word(at + 4)? >> 31 != 0;
        for number in 0..count {
            let member = at + ENTRY + number * MEMBER;
            let (label, of) = (self.word(member)?, self.word(member + 4)?);
            let place = self.word(member + 8)?;
            let bits = if has_bitfields {
                place & 0xff_ffff
            } else {
                place
            };
            if self.is_name(label, name) {
                return Ok(Some((bits, of)));
            }
            if self.is_name(label, "")
                && let Some((inner, of)) = self.member(self.resolved(of)?, name)?
            {
                return Ok(Some((bits + inner, of)));
            }
        }
        Ok(None)
    }

    /// The type behind other names of it.
    fn resolved(&self, number: u32) -> Result<usize> {
        let mut number = number;
        // Of names of names there are few.
        for _ in 0..16 {
            let at = *self
                .types
                .get(number as usize)
                .context("a type is missing")?;
            let (kind, _) = self.kind(at)?;
            // Typedef, volatile, const, restrict, a tag.
            if !matches!(kind, 8..=11 | 18) {
                return Ok(at);
            }
            number = self.word(at + 8)?;
        }
        bail!("a type has too many names");
    }

    /// Kind, and number of members or the like.
    fn kind(&self, at: usize) -> Result<(u32, usize)> {
        let info = self.word(at + 4)?;
        Ok((info >> 24 & 0x1f, (info & 0xffff) as usize))
    }

    fn word(&self, at: usize) -> Result<u32> {
        let bytes = self.bytes.get(at..at + 4).context("it is cut off")?;
        Ok(u32::from_ne_bytes(bytes.try_into()?))
    }

    fn is_name(&self, at: u32, name: &str) -> bool {
        let rest = self.bytes.get(self.strings + at as usize..);
        let found = rest.and_then(|rest| rest.strip_prefix(name.as_bytes()));
        found.is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// Bytes behind an entry.
fn following(kind: u32, count: usize) -> Result<usize> {
    Ok(match kind {
        // Integers, variables, declaration tags.
        1 | 14 | 17 => 4,
        KIND_ARRAY => 12,
        // Structures, unions, sections, enums of 64 bits.
        KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * count,
        // Enums and functions' parameters.
        6 | 13 => 8 * count,
        2 | 7..=12 | 16 | 18 => 0,
        kind => bail!("a type of an unknown kind, {kind}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct a { int x; union { struct b { short y; short z; } i; int w; }; }`, by hand.
    #[test]
    fn members_are_found_in_nameless_ones() {
        let strings = b"\0a\0x\0b\0y\0z\0i\0w\0int\0";
        let (a, x, b, y, z, i, w, int) = (1, 3, 5, 7, 9, 11, 13, 15);
        let types: Vec<u32> = [
            // 1: int; 2: struct b; 3: a union; 4: struct a.
            vec![int, 1 << 24, 4, 32],
            vec![b, KIND_STRUCT << 24 | 2, 4, y, 1, 0, z, 1, 16],
            vec![0, KIND_UNION << 24 | 2, 4, i, 2, 0, w, 1, 0],
            vec![a, KIND_STRUCT << 24 | 2, 8, x, 1, 0, 0, 3, 32],
        ]
        .concat();
        let len = types.len() as u32 * 4;
        let header = [
            u32::from(MAGIC) | 1 << 16,
            24,
            0,
            len,
            len,
            strings.len() as u32,
        ];
        let words = header
            .iter()
            .chain(&types)
            .flat_map(|word| word.to_ne_bytes());
        let bytes: Vec<u8> = words.chain(strings.iter().copied()).collect();
        let btf = Btf::parse(bytes).unwrap();
        assert_eq!(btf.offset("a", &["x"]).unwrap(), 0);
        assert_eq!(btf.offset("a", &["w"]).unwrap(), 4);
        assert_eq!(btf.offset("a", &["i", "z"]).unwrap(), 6);
        assert_eq!(btf.offset("b", &["z"]).unwrap(), 2);
        assert!(btf.offset("a", &["z"]).is_err());
        assert!(btf.offset("c", &["z"]).is_err());
        assert!(Btf::parse(vec![0; 24]).is_err());
    }
}
