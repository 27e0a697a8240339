//! Elements that are added to large sets: one by one they come to what they come to all at once.

use egress_lang::check::CheckOptions;
use egress_lang::checked::{Initial, Ruleset};
use egress_lang::diagnostic::{Diagnostics, SourceFile};
use egress_lang::parse::ParseOptions;
use egress_lang::print::{self, PrintOptions};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

fn load(before: &Ruleset, text: &str) -> Result<Ruleset, Diagnostics> {
    let file = SourceFile {
        name: "test",
        text: text.as_bytes(),
    };
    before.load(file, &ParseOptions::default(), &CheckOptions::default())
}

fn listing(ruleset: &Ruleset) -> String {
    print::ruleset(ruleset, &Initial, &PrintOptions::default())
}

/// A set or map, and how its elements are spelled.
#[derive(Debug, Clone, Copy)]
struct Kind {
    declared: &'static str,
    /// Of a number, and of a small one.
    element: fn(u32, u32) -> String,
}

fn address(number: u32) -> String {
    std::net::Ipv4Addr::from(number).to_string()
}

const KINDS: &[Kind] = &[
    Kind {
        declared: "set s { type ipv4_addr; size 2100;",
        element: |number, _| address(number),
    },
    Kind {
        declared: "map s { type ipv4_addr : mark;",
        element: |number, small| format!("{} : {}", address(number), small % 2),
    },
    Kind {
        declared: "set s { type ipv4_addr; flags interval;",
        element: |number, small| format!("{}/{}", address(number), 32 - small % 4),
    },
    Kind {
        declared: "map s { type ipv4_addr : verdict; flags interval;",
        element: |number, small| {
            let last = number.saturating_add(small % 3);
            let verdict = ["accept", "drop"][small as usize / 3 % 2];
            format!("{}-{} : {verdict}", address(number), address(last))
        },
    },
    Kind {
        declared: "set s { type ipv4_addr; flags interval; auto-merge;",
        element: |number, small| format!("{}/{}", address(number), 32 - small % 4),
    },
    Kind {
        declared: "set s { type inet_service;",
        element: |number, _| (number % 60_000).to_string(),
    },
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn added_ones_are_as_if_they_had_been_there(
        kind in select(KINDS),
        added in vec((0u32..2_100, 0u32..7, any::<bool>()), 1..6),
    ) {
        // Between those that are there is room, so that some of what is added meets them and some does not.
        let there: Vec<String> = (0..2_048).map(|number| (kind.element)(number * 16, 0)).collect();
        let added: Vec<String> = added
            .into_iter()
            .map(|(number, small, near)| (kind.element)(number * 16 + u32::from(!near) * 7, small))
            .collect();
        let declaration = format!("table netdev t {{ {} }}; }}", kind.declared);
        let add = |elements: &[String]| format!("add element netdev t s {{ {} }}\n", elements.join(", "));
        let empty = load(&Ruleset::default(), &declaration).unwrap();
        let many = load(&empty, &add(&there)).unwrap();
        let after = load(&many, &add(&added));
        // In one transaction, all are put in order.
        let once = load(&empty, &(add(&there) + &add(&added)));
        match (after, once) {
            (Ok(after), Ok(once)) => prop_assert_eq!(listing(&after), listing(&once)),
            (Err(after), Err(once)) => {
                let message = |error: &Diagnostics| error.errors[0].message.clone();
                prop_assert_eq!(message(&after), message(&once));
            }
            (after, once) => prop_assert!(false, "{:?} {:?}", after.is_ok(), once.is_ok()),
        }
        // What shared its elements is as it was.
        prop_assert_eq!(listing(&many), listing(&load(&empty, &add(&there)).unwrap()));
    }
}
