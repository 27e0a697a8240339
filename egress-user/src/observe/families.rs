//! Which numbers there are, and their names (prometheus.io/docs/practices/naming).

use std::{collections::BTreeMap, time::UNIX_EPOCH};

use crate::{
    commands::status::Presence,
    observe::{
        Named, Namespace, Place, Sample,
        openmetrics::{Family, Kind, Labels, Number},
    },
};

/// Makes a family of what `rows` has.
fn family(
    name: &'static str,
    help: &'static str,
    kind: Kind,
    rows: impl IntoIterator<Item = (Labels, Number)>,
) -> Family {
    Family {
        name,
        help,
        kind,
        rows: rows.into_iter().collect(),
    }
}

impl Sample {
    /// All families, in the order in which they are printed.
    pub fn families(&self) -> Vec<Family> {
        let mut all = self.of_programs();
        all.extend(self.of_interfaces());
        all.extend(self.of_generations());
        all.extend(self.of_rules());
        all.extend(self.of_objects());
        let refused = self.guards.iter().map(|guard| {
            let labels = vec![("cgroup_id", guard.cgroup.to_string())];
            (labels, Number::Count(guard.refusals))
        });
        all.push(family(
            "egress_guard_refusals",
            "Calls that a guard refused: PACKET_QDISC_BYPASS would go around all tc programs.",
            Kind::Counter,
            refused,
        ));
        all
    }

    /// Interfaces that run the same program share its counts: they are counted once.
    fn of_programs(&self) -> Vec<Family> {
        let mut programs = BTreeMap::new();
        for interface in &self.attached.interfaces {
            programs
                .entry((&interface.netns, interface.program))
                .or_insert(interface);
        }
        let labels = |netns: &str, program: u32, hook: &str| {
            vec![
                ("netns", netns.to_owned()),
                ("program", program.to_string()),
                ("hook", hook.to_owned()),
            ]
        };
        let (mut packets, mut broken, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        let (mut tables, mut memory, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        for ((netns, program), of) in programs {
            let own = labels(netns, program, of.hook);
            let passed = of.packets_seen.saturating_sub(of.packets_dropped);
            for (verdict, count) in [
                ("accept", passed),
                ("drop", of.packets_dropped),
                ("skip", of.packets_skipped),
            ] {
                let mut labels = own.clone();
                labels.push(("verdict", verdict.to_owned()));
                packets.push((labels, Number::Count(count)));
            }
            broken.push((own.clone(), Number::Count(of.packets_broken)));
            lost.push((own.clone(), Number::Count(of.events_lost)));
            tables.push((own.clone(), Number::Count(of.tables_bytes)));
            memory.push((own.clone(), Number::Count(of.memory_bytes)));
            rules.push((own, Number::Count(of.rules)));
        }
        vec![
            family(
                "egress_packets",
                "Packets that a program saw, by what became of them; skip: they carried the skip mark.",
                Kind::Counter,
                packets,
            ),
            family(
                "egress_packets_broken",
                "Packets that passed because the tables were not as they must be: anything but 0 is a defect.",
                Kind::Counter,
                broken,
            ),
            family(
                "egress_events_lost",
                "Packets that log or nftrace were to tell of when nobody listened, or too many came.",
                Kind::Counter,
                lost,
            ),
            family(
                "egress_program_rules",
                "Rules that packets of a program can come to.",
                Kind::Gauge,
                rules,
            ),
            family(
                "egress_program_table_bytes",
                "Size of a program's tables.",
                Kind::Gauge,
                tables,
            ),
            family(
                "egress_program_memory_bytes",
                "Kernel memory of a program, its tables and its own counters.",
                Kind::Gauge,
                memory,
            ),
        ]
    }

    fn of_interfaces(&self) -> Vec<Family> {
        let attached = self.attached.interfaces.iter().map(|of| {
            let labels = vec![
                ("netns", of.netns.clone()),
                ("interface", of.interface.clone()),
                ("hook", of.hook.to_owned()),
                ("mode", of.mode.to_owned()),
                ("program", of.program.to_string()),
            ];
            let there = of.state == Presence::InForce;
            (labels, Number::Count(u64::from(there)))
        });
        let unreadable = (
            Vec::new(),
            Number::Count(self.attached.unreadable.len() as u64),
        );
        vec![
            family(
                "egress_attached",
                "Whether the program of an interface's hook is where it was put: 0 where it was removed, replaced, or cannot be looked at.",
                Kind::Gauge,
                attached,
            ),
            family(
                "egress_unreadable_namespaces",
                "Network namespaces whose pins cannot be read.",
                Kind::Gauge,
                [unreadable],
            ),
        ]
    }

    fn of_generations(&self) -> Vec<Family> {
        let of = |netns: &str| vec![("netns", netns.to_owned())];
        let attached = &self.attached.namespaces;
        let numbers = attached
            .iter()
            .map(|one| (of(&one.netns), Number::Count(one.generation)));
        let memory = attached
            .iter()
            .map(|one| (of(&one.netns), Number::Count(one.memory_bytes)));
        let built = || {
            let all = self.namespaces.iter();
            all.filter_map(|one| Some((of(&one.netns), one.built?)))
        };
        let when = built().filter_map(|(labels, (when, _))| {
            let since = when.duration_since(UNIX_EPOCH).ok()?;
            Some((labels, Number::Real(since.as_secs_f64())))
        });
        let took = built().map(|(labels, (_, took))| (labels, Number::Real(took.as_secs_f64())));
        vec![
            family(
                "egress_generation",
                "Number of the generation in force; each change makes a new one.",
                Kind::Gauge,
                numbers,
            ),
            family(
                "egress_load_timestamp_seconds",
                "When the generation in force was built.",
                Kind::Gauge,
                when,
            ),
            family(
                "egress_load_duration_seconds",
                "How long the generation in force took to compile, verify and fill in.",
                Kind::Gauge,
                took,
            ),
            family(
                "egress_memory_bytes",
                "Kernel memory of everything that is pinned.",
                Kind::Gauge,
                memory,
            ),
        ]
    }

    fn of_rules(&self) -> Vec<Family> {
        let (mut packets, mut bytes) = (Vec::new(), Vec::new());
        let (mut chain_rules, mut chain_packets, mut chain_bytes) =
            (Vec::new(), Vec::new(), Vec::new());
        for namespace in &self.namespaces {
            for chain in &namespace.chains {
                let mut labels = at(namespace, &chain.place);
                labels.push(("chain", chain.name.clone()));
                if let Some(count) = chain.count {
                    chain_packets.push((labels.clone(), Number::Count(count.packets)));
                    chain_bytes.push((labels.clone(), Number::Count(count.bytes)));
                }
                let (hook, policy) = chain.base.unwrap_or_default();
                labels.extend([("hook", hook.to_owned()), ("policy", policy.to_owned())]);
                chain_rules.push((labels, Number::Count(chain.rules)));
            }
            for rule in &namespace.rules {
                let mut labels = at(namespace, &rule.place);
                labels.push(("chain", rule.chain.clone()));
                labels.push(("handle", rule.handle.to_string()));
                labels.push(("comment", rule.comment.clone()));
                packets.push((labels.clone(), Number::Count(rule.count.packets)));
                bytes.push((labels, Number::Count(rule.count.bytes)));
            }
        }
        vec![
            family(
                "egress_chain_rules",
                "Rules of a chain.",
                Kind::Gauge,
                chain_rules,
            ),
            family(
                "egress_chain_packets",
                "Packets that the counters of a chain's rules counted, in sum: one that meets two of them is counted twice.",
                Kind::Counter,
                chain_packets,
            ),
            family(
                "egress_chain_bytes",
                "Bytes that the counters of a chain's rules counted, in sum.",
                Kind::Counter,
                chain_bytes,
            ),
            family(
                "egress_rule_packets",
                "Packets that a rule's counter counted.",
                Kind::Counter,
                packets,
            ),
            family(
                "egress_rule_bytes",
                "Bytes that a rule's counter counted.",
                Kind::Counter,
                bytes,
            ),
        ]
    }

    fn of_objects(&self) -> Vec<Family> {
        fn named<T: Copy>(
            sample: &Sample,
            kind: &'static str,
            of: impl Fn(&Namespace) -> &[Named<T>],
            number: impl Fn(T) -> u64,
        ) -> Vec<(Labels, Number)> {
            let rows = sample.namespaces.iter().flat_map(|namespace| {
                let rows = of(namespace).iter().map(|object| {
                    let mut labels = at(namespace, &object.place);
                    labels.push((kind, object.name.clone()));
                    (labels, Number::Count(number(object.value)))
                });
                rows.collect::<Vec<_>>()
            });
            rows.collect()
        }
        let counters = |number: fn(crate::generation::state::Count) -> u64| {
            named(self, "counter", |one| &one.counters, number)
        };
        let quotas =
            |number: fn((u64, u64)) -> u64| named(self, "quota", |one| &one.quotas, number);
        vec![
            family(
                "egress_counter_packets",
                "Packets that a named counter counted.",
                Kind::Counter,
                counters(|count| count.packets),
            ),
            family(
                "egress_counter_bytes",
                "Bytes that a named counter counted.",
                Kind::Counter,
                counters(|count| count.bytes),
            ),
            family(
                "egress_quota_used_bytes",
                "Bytes used of a named quota.",
                Kind::Gauge,
                quotas(|(used, _)| used),
            ),
            family(
                "egress_quota_limit_bytes",
                "Bytes of a named quota in all.",
                Kind::Gauge,
                quotas(|(_, all)| all),
            ),
            family(
                "egress_set_elements",
                "Elements of a named set or map.",
                Kind::Gauge,
                named(self, "set", |one| &one.sets, |elements| elements),
            ),
        ]
    }
}

fn at(namespace: &Namespace, place: &Place) -> Labels {
    vec![
        ("netns", namespace.netns.clone()),
        ("scope", place.scope.clone()),
        ("table", place.table.clone()),
    ]
}
