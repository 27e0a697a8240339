//! Declarations: chains, sets and objects.

use super::rule::{Failed, RuleChecker};
use super::{Shared, set};
use crate::ast::{self, DataSpec, HookSpec, KeySpec, ObjectConfig};
use crate::checked::{
    Base, Counter, Element, Hook, MapData, Object, ObjectState, Policy, Quota, Set, Table, TypePart,
};
use crate::datatype::{DATA_TYPES, DataType};
use crate::diagnostic::{Span, nearest};

type Result<T> = std::result::Result<T, Failed>;

/// Priorities that have names in this family.
const FILTER: i64 = 0;

impl Shared {
    fn fail<T>(&mut self, span: Span, message: impl Into<String>) -> Result<T> {
        self.error(span, message);
        Err(Failed)
    }

    /// Where a chain is hooked.
    pub(super) fn base(&mut self, spec: &HookSpec, policy: Option<&ast::Name>) -> Result<Base> {
        let hook = match spec.hook.text.as_str() {
            "ingress" => Hook::Ingress,
            "egress" => Hook::Egress,
            other => {
                let mut message = "unknown chain hook".to_owned();
                if let Some(near) = nearest(other, ["ingress", "egress"]) {
                    message.push_str(&format!("; did you mean \u{2018}{near}\u{2019}?"));
                }
                return self.fail(spec.hook.span, message);
            }
        };
        match spec.chain_type.text.as_str() {
            "filter" => {}
            "nat" | "route" => {
                return self.fail(
                    spec.chain_type.span,
                    "Could not process rule: No such file or directory",
                );
            }
            _ => return self.fail(spec.chain_type.span, "unknown chain type"),
        }
        let named = match &spec.priority.name {
            None => 0,
            Some(name) if name.text == "filter" => FILTER,
            Some(name) => {
                let message = format!("'{}' is invalid priority in this context.", name.text);
                return self.fail(spec.priority.span, message);
            }
        };
        let Ok(priority) = i32::try_from(named + spec.priority.offset) else {
            return self.fail(spec.priority.span, "priority out of range");
        };
        let policy = match policy.map(|policy| policy.text.as_str()) {
            Some("drop") => Policy::Drop,
            _ => Policy::Accept,
        };
        let mut devices = Vec::new();
        match &spec.devices {
            Some(names) => {
                for name in names {
                    self.device_name(name)?;
                    if !devices.contains(&name.text) {
                        devices.push(name.text.clone());
                    }
                }
            }
            None if self.options.default_devices.is_empty() => {
                let message = "Missing `device' in this chain definition";
                return self.fail(spec.span, message);
            }
            None => devices.clone_from(&self.options.default_devices),
        }
        Ok(Base {
            hook,
            devices,
            priority,
            policy,
        })
    }

    fn device_name(&mut self, name: &ast::Name) -> Result<()> {
        if name.text.is_empty() || name.text.len() > 15 {
            return self.fail(name.span, "device name too long");
        }
        if name.text.contains(['/', ' ', '\t', '\n', '*']) {
            return self.fail(name.span, "invalid device name");
        }
        Ok(())
    }

    /// A named object, without a handle.
    pub(super) fn object(&mut self, name: &ast::Name, block: &ast::ObjectBlock) -> Result<Object> {
        let id = self.state_id();
        let state = match &block.config {
            ObjectConfig::Counter(packets, bytes) => ObjectState::Counter(Counter {
                id,
                packets: *packets,
                bytes: *bytes,
            }),
            ObjectConfig::Quota(quota) => ObjectState::Quota(Quota {
                id,
                bytes: quota.bytes,
                used: quota.used,
                over: quota.over,
            }),
            ObjectConfig::Limit(limit) => ObjectState::Limit(self.limit(limit, id, block.span)?),
        };
        Ok(Object {
            name: name.text.clone(),
            handle: 0,
            comment: block.comment.as_ref().map(|comment| comment.text.clone()),
            state,
        })
    }

    fn type_part(&mut self, name: &ast::Name) -> Result<TypePart> {
        let data_type = DataType::by_name(&name.text);
        let width = data_type.map_or(0, |data_type| data_type.row().width);
        match data_type {
            Some(data_type) if width > 0 => Ok(TypePart { data_type, width }),
            Some(_) => {
                let message = "unqualified type specified in set definition. Try \"typeof expression\" instead of \"type datatype\".";
                self.fail(name.span, message)
            }
            None => {
                let known = DATA_TYPES.iter().map(|row| row.name);
                let mut message = format!("unknown datatype {}", name.text);
                if let Some(near) = nearest(&name.text, known) {
                    message.push_str(&format!("; did you mean \u{2018}{near}\u{2019}?"));
                }
                self.fail(name.span, message)
            }
        }
    }
}

impl Shared {
    /// The types of a set's key or a map's data, and what they were declared with.
    fn key_spec(
        &mut self,
        table: &Table,
        spec: &KeySpec,
    ) -> Result<(Vec<TypePart>, Option<crate::checked::Expr>)> {
        match spec {
            KeySpec::Type(names) => {
                let parts = names.iter().map(|name| self.type_part(name));
                Ok((parts.collect::<Result<Vec<_>>>()?, None))
            }
            KeySpec::Typeof(expr) => {
                // Its parts need not be of one packet.
                let items = match &expr.kind {
                    ast::ExprKind::Concat(items) => items.as_slice(),
                    _ => std::slice::from_ref(expr),
                };
                let (mut exprs, mut parts) = (Vec::new(), Vec::new());
                for item in items {
                    let index = Default::default();
                    let mut checker = RuleChecker::new(self, table, &index);
                    checker.declares = true;
                    let mut typed = checker.read(item)?;
                    super::listing::name(&mut typed.expr);
                    parts.extend(typed.parts);
                    exprs.push(typed.expr);
                }
                super::expr::concatenated(&parts)
                    .or_else(|message| self.fail(expr.span, message))?;
                let all = match exprs.pop() {
                    Some(only) if exprs.is_empty() => Some(only),
                    last => {
                        exprs.extend(last);
                        Some(crate::checked::Expr::Concat(exprs))
                    }
                };
                Ok((parts, all))
            }
        }
    }

    /// A set or map, without a handle and without elements.
    pub(super) fn set_declaration(
        &mut self,
        table: &Table,
        name: &ast::Name,
        block: &ast::SetBlock,
    ) -> Result<Set> {
        let Some(key) = &block.key else {
            let what = if block.is_map { "map" } else { "set" };
            let message = format!("{what} definition does not specify key");
            return self.fail(name.span, message);
        };
        let (key, type_of) = self.key_spec(table, key)?;
        let data = match &block.data {
            None if block.is_map => {
                return self.fail(
                    name.span,
                    "map definition does not specify mapping data type",
                );
            }
            None => None,
            Some(DataSpec::Verdict) => Some(MapData::Verdict),
            Some(DataSpec::Object(kind)) => Some(MapData::Object(*kind)),
            Some(DataSpec::Key(spec)) => {
                let (parts, type_of) = self.key_spec(table, spec)?;
                Some(MapData::Value {
                    parts,
                    type_of: type_of.map(Box::new),
                })
            }
        };
        let mut set = Set {
            name: name.text.clone(),
            id: self.state_id(),
            comment: block.comment.as_ref().map(|comment| comment.text.clone()),
            key,
            type_of,
            data,
            auto_merge: block.auto_merge,
            timeout: block.timeout,
            gc_interval: block.gc_interval,
            ..Set::default()
        };
        for flag in &block.flags {
            match flag.text.as_str() {
                "constant" => set.constant = true,
                "interval" => set.interval = true,
                "timeout" => set.has_timeout = true,
                "dynamic" => set.dynamic = true,
                _ => return self.fail(flag.span, "unknown set flag"),
            }
        }
        if set.timeout.is_some() {
            set.has_timeout = true;
        }
        if let Some((size, span)) = block.size {
            match u32::try_from(size) {
                Ok(size) => set.size = Some(size),
                Err(_) => return self.fail(span, "set size out of range"),
            }
        }
        if let Some(policy) = &block.policy {
            match policy.text.as_str() {
                "performance" => {}
                "memory" => set.policy_memory = true,
                _ => return self.fail(policy.span, "unknown set policy"),
            }
        }
        let index = Default::default();
        let mut checker = RuleChecker::new(self, table, &index);
        for statement in &block.statements {
            let statement = checker.stateful(statement)?;
            set.statements.push(statement);
        }
        Ok(set)
    }

    /// The elements that a declaration or a command names, checked against their set. `by_index`: interfaces are
    /// known by index in it, as the map of elements of sets that change has them.
    pub(super) fn set_elements(
        &mut self,
        table: &Table,
        index: &super::rule::Index,
        set: &Set,
        by_index: bool,
        elements: &ast::Expr,
    ) -> Result<Vec<(Element, Span)>> {
        let ast::ExprKind::Set(elements) = &elements.kind else {
            return self.fail(elements.span, "elements stand between braces");
        };
        let mut checker = RuleChecker::new(self, table, index);
        checker.by_index = by_index;
        let mut checked = Vec::new();
        checker.elements(elements, &set.key, set.data.as_ref(), &mut checked)?;
        if !set.interval && set::has_intervals(&checked) {
            let span = checked
                .iter()
                .find(|one| set::has_intervals(std::slice::from_ref(one)))
                .map_or_else(Span::default, |(_, span)| *span);
            let message = "You must add 'flags interval' to your set declaration if you want to add range elements";
            return self.fail(span, message);
        }
        Ok(checked)
    }
}
