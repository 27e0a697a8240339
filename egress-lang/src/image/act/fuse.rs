//! Several instructions as one, where one can do it: what an instruction costs is mostly the way to it
//! (docs/decisions/acts.md).

use egress_common::act::{LOAD_KEY_SHIFT, code, field, limit, writable, write};
use egress_common::layout::{fetch, meta};
use egress_common::store;

use super::Instruction;
use crate::ir::Register;

/// Makes one instruction of several where one can do it.
pub(super) fn fuse(instructions: Vec<Instruction>) -> Vec<Instruction> {
    let mut out: Vec<Instruction> = Vec::with_capacity(instructions.len());
    for (number, &instruction) in instructions.iter().enumerate() {
        out.push(instruction);
        let behind = instructions.get(number + 1..).unwrap_or_default();
        while let [.., first, second] = out[..]
            && first.register == second.register
            && let Some(both) = first.with(second)
            && is_unused(second.register, behind)
        {
            out.truncate(out.len() - 2);
            out.push(both);
        }
        while let Some((fields, hash)) = hash_of_fields(&out) {
            out.truncate(out.len() - fields);
            if let Some(last) = out.last_mut() {
                *last = hash;
            }
        }
    }
    out
}

/// Joins loads of keys of one word with what the key is for. Keys begin with the first part behind what a key was
/// for, or with the act.
pub(super) fn keys_of_a_word(instructions: Vec<Instruction>) -> Vec<Instruction> {
    let mut out: Vec<Instruction> = Vec::with_capacity(instructions.len());
    // Whether the next part begins a key, and whether the last instruction did.
    let (mut begins, mut begun) = (true, false);
    for instruction in instructions {
        let user = matches!(instruction.code, code::LOOKUP | code::CHANGE);
        if user
            && begun
            && let Some(key) = out.last().and_then(Instruction::field)
        {
            out.pop();
            out.push(Instruction {
                c: field::IS_KEY | u64::from(key),
                ..instruction
            });
            (begins, begun) = (true, false);
            continue;
        }
        begun = begins && instruction.is_load_of_a_word();
        begins = match instruction.code {
            code::NEW_KEY => true,
            code::LOAD_RARE | code::KEY | code::LOAD => {
                begins && instruction.code == code::LOAD && instruction.a >> LOAD_KEY_SHIFT == 0
            }
            _ => begins,
        };
        out.push(instruction);
    }
    out
}

/// A hash at the end whose key is one or two fields of at most 32 bits, as one instruction, and how many there are.
fn hash_of_fields(instructions: &[Instruction]) -> Option<(usize, Instruction)> {
    let (&hash, before) = instructions.split_last()?;
    if hash.code != code::JHASH {
        return None;
    }
    let count = match hash.arg {
        1..=4 => 1,
        5..=8 => 2,
        _ => return None,
    };
    let fields = before.get(before.len().checked_sub(count)?..)?;
    let mut all = 0;
    for load in fields.iter().rev() {
        all = all << 32 | u64::from(load.field()?);
    }
    let both = Instruction {
        code: code::JHASH_FIELDS,
        b: pair_of(hash.b, hash.c)?,
        c: all,
        ..hash
    };
    Some((count, both))
}

/// Two numbers of 32 bits, the first in the lower half.
fn pair_of(lower: u64, upper: u64) -> Option<u64> {
    let (lower, upper) = (u32::try_from(lower).ok()?, u32::try_from(upper).ok()?);
    Some(u64::from(upper) << 32 | u64::from(lower))
}

/// Whether nothing reads a register before it is set.
fn is_unused(register: Register, instructions: &[Instruction]) -> bool {
    for instruction in instructions {
        if instruction.reads(register) {
            return false;
        }
        if instruction.sets(register) {
            return true;
        }
    }
    true
}

impl Instruction {
    /// The field that it appends to the key, as [`field`] has it.
    fn field(&self) -> Option<u32> {
        let shift = u32::try_from(self.b).ok().filter(|&shift| shift < 32)?;
        let word = u32::from(self.a as u8) | shift << field::SHIFT;
        self.is_load_of_a_word()
            .then_some(word | u32::from(self.arg) << field::OFFSET)
    }

    /// Whether it appends a field to the key that is neither wide nor an option nor from outside of the packet.
    fn is_load_of_a_word(&self) -> bool {
        let fetched = self.a as u8;
        self.code == code::LOAD
            && self.a >> LOAD_KEY_SHIFT == 1
            && fetched & (fetch::META | fetch::WIDE) != fetch::WIDE
            && fetched < fetch::META | meta::SKUID
    }

    fn reads(&self, register: Register) -> bool {
        match self.code {
            code::LOAD
            | code::CONSTANT
            | code::LENGTH_COST
            | code::QUOTA
            | code::LAST
            | code::NUMGEN_INC
            | code::RANDOM
            | code::KEPT
            | code::LOG
            | code::JHASH
            | code::JHASH_FIELDS
            | code::SELECTED
            | code::NEW_KEY
            | code::LOOKUP => false,
            // The address, too.
            code::FWD_NEIGH => true,
            _ => self.register == register,
        }
    }

    /// Whether it surely sets a register to what is another value than before.
    fn sets(&self, register: Register) -> bool {
        let sets = match self.code {
            code::LOAD => self.a >> LOAD_KEY_SHIFT == 0,
            code::CONSTANT
            | code::LENGTH_COST
            | code::NUMGEN_INC
            | code::RANDOM
            | code::KEPT
            | code::JHASH
            | code::JHASH_FIELDS => true,
            _ => false,
        };
        sets && self.register == register
    }

    /// One that does what this one and then the next does, of the same register, but for what is in that
    /// register then.
    fn with(self, next: Self) -> Option<Self> {
        let plain = |instruction: Self| instruction.b == u64::MAX && instruction.c == 0;
        let len = next.a >> write::LEN_SHIFT & 0xf;
        // As the bits of what is written stand.
        let aligned = |value: u64| match next.code {
            code::WRITE | code::WRITE_INNER => store::left_aligned(value, len),
            _ => value,
        };
        let of_itself = match next.a {
            writable::MARK => meta::MARK,
            _ => meta::PRIORITY,
        };
        let fused = match (self.code, next.code) {
            (code::LOAD, code::SET_META)
                if self.a == u32::from(fetch::META | of_itself)
                    && next.a != writable::PKTTYPE
                    && next.arg == 0 =>
            {
                Self { arg: 1, ..next }
            }
            (code::CONSTANT, code::DUP | code::FWD | code::REDIRECT) => Self {
                arg: 1,
                b: self.b,
                ..next
            },
            (
                code::LOAD
                | code::NUMGEN_INC
                | code::RANDOM
                | code::JHASH
                | code::JHASH_FIELDS
                | code::KEPT,
                code::SET_META,
            ) if plain(next) && self.sets(self.register) => Self {
                to: next.a + 1,
                ..self
            },
            (code::CONSTANT, code::SET_META | code::WRITE | code::WRITE_INNER) if plain(next) => {
                Self {
                    b: 0,
                    c: aligned(self.b),
                    ..next
                }
            }
            (code::BITWISE, code::SET_META | code::WRITE | code::WRITE_INNER) if plain(next) => {
                Self {
                    b: aligned(self.b),
                    c: aligned(self.c),
                    ..next
                }
            }
            (code::LOAD, code::WRITE) if self.loads_what_is_written_by(next) => Self {
                a: next.a | write::OLD,
                ..next
            },
            (code::CONSTANT, code::LIMIT) => Self {
                arg: next.arg | limit::CONSTANT,
                c: self.b,
                ..next
            },
            (code::LENGTH_COST, code::LIMIT) => Self {
                arg: next.arg | limit::LENGTH,
                c: ratio(self.b, self.c)?,
                ..next
            },
            // The key has no more bits there than the register.
            (code::SHIFT_LEFT, code::KEY)
                if next.b == 0 && (next.arg, self.b) == (1, u32::MAX.into()) =>
            {
                Self {
                    b: self.arg.into(),
                    ..next
                }
            }
            (code::LOAD, code::KEY) if self.a >> LOAD_KEY_SHIFT == 0 => Self {
                a: self.a | u32::from(next.arg.max(1)) << LOAD_KEY_SHIFT,
                b: next.b,
                ..self
            },
            _ => return None,
        };
        Some(fused)
    }

    /// Whether this reads, by nft's fast path, the bytes that an instruction writes.
    fn loads_what_is_written_by(self, write: Self) -> bool {
        let bases = u32::from(fetch::NETWORK | fetch::TRANSPORT);
        let len = match self.a as u8 & !(fetch::NETWORK | fetch::TRANSPORT) {
            fetch::LEN4 => 4,
            fetch::LEN2 => 2,
            fetch::LEN1 => 1,
            _ => return false,
        };
        self.a >> LOAD_KEY_SHIFT == 0
            && write.a & write::OLD == 0
            && (self.a & bases, self.arg) == (write.a & bases, write.arg)
            && write.a >> write::LEN_SHIFT & 0xf == len
    }
}

/// A packet's length is less than two to the power of this.
const LENGTH_BITS: u32 = 20;

/// Two numbers in lowest terms, of 32 bits each, the first one in the upper half; none where they are larger,
/// or where a length times the first one would not fit in 64 bits.
fn ratio(of: u64, to: u64) -> Option<u64> {
    let (mut a, mut b) = (of, to);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    if of.leading_zeros() < LENGTH_BITS {
        return None;
    }
    let (of, to) = (of.checked_div(a)?, to.checked_div(a)?);
    let (of, to) = (u32::try_from(of).ok()?, u32::try_from(to).ok()?);
    (to != 0).then_some(u64::from(of) << 32 | u64::from(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_of_lengths() {
        let second = 1_000_000_000;
        assert_eq!(ratio(second, second), Some(1 << 32 | 1));
        assert_eq!(ratio(second, 3), Some(second << 32 | 3));
        assert_eq!(ratio(60 * second, 1000), Some(60_000_000 << 32 | 1));
        // Too large, or of a product that wraps around.
        assert_eq!(ratio(3600 * second, 7), None);
        assert_eq!(ratio(604_800 * second, 604_800 * second), None);
        assert_eq!(ratio(second, 0), None);
    }
}
