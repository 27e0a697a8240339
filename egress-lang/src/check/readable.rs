//! Listings that can be read. What nft lists is not always read as the rule that it is of, or not read at all
//! (`again`). Such a rule is listed with the names that it was written with; where that contradicts itself, too, matches
//! are listed after all that fields imply, and at last fields as raw payload.

use super::again::{self, Read, Written};
use super::context::Context;
use super::listing::{Names, Renamed, name_all, undo};
use super::place::{each_place, place, raw};
use super::unnamed::{match_of_raw, write_of_raw};
use crate::checked::{Expr, Lookup, Match, MatchOp, Right, Statement};
use crate::datatype::DataType;

/// Names what statements read, and marks what the listing leaves out.
pub(super) fn list(statements: &mut [Statement]) {
    let listing = name_all(statements, Names::Found);
    leave_out(statements, &listing.implied, true);
    let written = Written::Raw(&listing.unnamed_targets);
    if !listing.broken && again::read(statements, written) == Read::Same {
        show_raw(statements, &listing.renamed);
        for &at in &listing.unnamed_targets {
            statements.get_mut(at).map(write_of_raw);
        }
        return;
    }
    leave_out(statements, &listing.implied, false);
    let found = (
        listing.broken,
        listing.implied.clone(),
        listing.renamed.len(),
    );
    undo(statements, listing.renamed);
    let listing = name_all(statements, Names::Written);
    leave_out(statements, &listing.implied, true);
    // nft's own listing may be read as another rule: as long as that is no wider, it stays so.
    let is_nfts = found == (false, listing.implied.clone(), listing.renamed.len());
    match read(statements) {
        Read::Same => {}
        Read::Narrower if is_nfts => {}
        found => search(statements, &listing.implied, found),
    }
}

/// Finds the forms of what lost its name.
fn show_raw(statements: &mut [Statement], renamed: &[Renamed]) {
    for &(at, ..) in renamed {
        if let Some(Statement::Match(matched)) = statements.get_mut(at) {
            match_of_raw(matched);
        }
    }
}

fn leave_out(statements: &mut [Statement], matches: &[usize], implied: bool) {
    for &at in matches {
        imply(statements, at, implied);
    }
}

/// What is written keeps its name, also where that contradicts: no checksum is mended where it is raw.
fn read(statements: &[Statement]) -> Read {
    again::read(statements, Written::Named)
}

/// Shows more than a listing should, or less: best so that the rule is read, else one that matches no more.
fn search(statements: &mut [Statement], hidden: &[usize], found: Read) {
    if hide_one(statements) {
        return;
    }
    for wanted in [Read::Same, Read::Narrower, Read::Other] {
        if wanted <= found
            || show_one(statements, hidden, wanted)
            || show_all(statements, hidden, wanted)
        {
            return;
        }
    }
}

/// One match that is shown may be put in front again when the listing is read.
fn hide_one(statements: &mut [Statement]) -> bool {
    for at in 0..statements.len() {
        let Some(Statement::Match(matched)) = statements.get_mut(at) else {
            continue;
        };
        if matched.implied || !again::says_protocol(&matched.left) {
            continue;
        }
        matched.implied = true;
        if read(statements) == Read::Same {
            return true;
        }
        imply(statements, at, false);
    }
    false
}

/// One match may be enough.
fn show_one(statements: &mut [Statement], hidden: &[usize], wanted: Read) -> bool {
    hidden.iter().any(|&at| {
        imply(statements, at, false);
        let found = read(statements) >= wanted;
        if !found {
            imply(statements, at, true);
        }
        found
    })
}

/// All matches; and raw payload instead of the fields that contradict them still, as nothing implies what those need.
fn show_all(statements: &mut [Statement], hidden: &[usize], wanted: Read) -> bool {
    leave_out(statements, hidden, false);
    if read(statements) >= wanted || hide_one(statements) {
        return true;
    }
    let mended = mend(statements);
    if read(statements) >= wanted {
        show_raw(statements, &mended);
        return true;
    }
    undo(statements, mended);
    leave_out(statements, hidden, true);
    false
}

/// Says of a match whether it is implied.
fn imply(statements: &mut [Statement], at: usize, implied: bool) {
    if let Some(Statement::Match(matched)) = statements.get_mut(at) {
        matched.implied = implied;
    }
}

/// Makes raw payload of the fields that contradict what is said in front of them.
fn mend(statements: &mut [Statement]) -> Vec<Renamed> {
    let mut mender = Mender::default();
    for (at, statement) in statements.iter_mut().enumerate() {
        (mender.at, mender.place) = (at, 0);
        mender.statement(statement);
    }
    mender.renamed
}

/// Reads statements of which all are shown.
#[derive(Default)]
struct Mender {
    context: Context,
    /// Which statement is read, and which of its places.
    at: usize,
    place: usize,
    renamed: Vec<Renamed>,
}

impl Mender {
    fn statement(&mut self, statement: &mut Statement) {
        let is_written = matches!(statement, Statement::Set { .. });
        each_place(statement, &mut |expr| {
            // Only the first place may be what is written.
            if !is_written || self.place > 0 {
                self.expr(expr);
            }
            self.place += 1;
        });
        match statement {
            Statement::Match(Match {
                left,
                right: Right::Set(lookup),
                ..
            })
            | Statement::VerdictMap {
                key: left,
                map: lookup,
            } => plain(left, lookup),
            _ => {}
        }
        if let Statement::Match(Match {
            left,
            op: MatchOp::Eq,
            right,
            ..
        }) = statement
        {
            again::learn(&mut self.context, left, right);
        }
    }

    fn expr(&mut self, expr: &mut Expr) {
        let Expr::Field { id, .. } = expr else {
            return;
        };
        // The tag or the header that it is of may be another one by then.
        let read = self.context.field(*id, &mut Vec::new());
        if read.is_ok_and(|read| place(&read) == place(expr)) {
            return;
        }
        if let Some(raw) = raw(expr) {
            let old = std::mem::replace(expr, raw);
            self.renamed.push((self.at, self.place, old));
        }
    }
}

/// Elements that raw payload is compared with are numbers.
fn plain(left: &Expr, lookup: &mut Lookup) {
    if let (Expr::Raw { .. }, Lookup::Anonymous(set)) = (left, lookup)
        && let [part] = set.key.as_mut_slice()
    {
        part.data_type = DataType::HexInteger;
    }
}
