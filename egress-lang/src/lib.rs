//! The nft language: text to checked ruleset to tables.

pub mod ast;
mod boxes;
pub mod changes;
pub mod check;
pub mod checked;
pub mod classbench;
pub mod datatype;
pub mod diagnostic;
pub mod element;
pub mod field;
pub mod image;
pub mod interpret;
pub mod ir;
pub mod json;
pub mod lex;
pub mod lower;
pub mod meta;
pub mod monitor;
pub mod options;
pub mod parse;
pub mod places;
pub mod print;
pub mod query;
pub mod ranges;
pub mod reference;
pub mod simulate;
pub mod warn;
