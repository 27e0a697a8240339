//! JSON input: what it says, as nft's text, which the parser then reads.
//!
//! Everything that the listings write can be read, and the commands around it: `add`, `create`,
//! `insert`, `replace`, `delete`, `flush`, `list`, `reset`; an object without a command is added.

use serde_json::{Map, Value};

use crate::datatype::addr;

/// What is wrong with a JSON text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON.
    #[error("{0}")]
    Syntax(String),
    /// It is not what the schema says.
    #[error("{0} is not what the schema says: {1}")]
    Schema(String, String),
}

type Result<T> = std::result::Result<T, JsonError>;
type Object = Map<String, Value>;

/// How deep expressions may nest.
const MAX_DEPTH: u32 = 32;

fn wrong<T>(what: &str, value: &Value) -> Result<T> {
    let mut shown = value.to_string();
    if let Some((at, _)) = shown.char_indices().nth(120) {
        shown.truncate(at);
        shown.push_str("...");
    }
    Err(JsonError::Schema(what.to_owned(), shown))
}

/// The commands of a JSON text, as nft's text, one on each line.
///
/// # Errors
///
/// Where it is no JSON, or not of the schema.
pub fn to_text(json: &str) -> Result<String> {
    let value: Value = serde_json::from_str(json).map_err(|e| JsonError::Syntax(e.to_string()))?;
    let Some(Value::Array(commands)) = value.get("nftables") else {
        return wrong("the text", &value);
    };
    let mut lines = Vec::with_capacity(commands.len());
    let mut listing = true;
    for command in commands {
        let Some((name, inner)) = only(command) else {
            return wrong("a command", command);
        };
        let text = match name {
            "metainfo" => continue,
            "add" | "create" | "insert" | "replace" | "delete" | "flush" | "list" | "reset" => {
                listing = false;
                (0, self::command(name, inner)?)
            }
            _ => (rank(name), self::command("add", command)?),
        };
        if text.1.contains('\n') {
            // One command stays one.
            return wrong("a command", command);
        }
        lines.push(text);
    }
    if listing {
        // Listings have maps before the chains that their verdicts name.
        lines.sort_by_key(|(rank, _)| *rank);
    }
    Ok(lines.into_iter().map(|(_, line)| line + "\n").collect())
}

/// In which order the parts of a listing can be added.
fn rank(kind: &str) -> u32 {
    match kind {
        "table" => 0,
        "chain" => 1,
        "counter" | "quota" | "limit" => 2,
        "rule" => 4,
        _ => 3,
    }
}

/// The one entry of an object.
fn only(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object()?;
    let (name, value) = object.iter().next()?;
    (object.len() == 1).then_some((name.as_str(), value))
}

fn text<'v>(object: &'v Object, key: &str) -> Option<&'v str> {
    object.get(key).and_then(Value::as_str)
}

/// A name of something: it must be one word, as it is written into a command.
fn word<'v>(object: &'v Object, key: &str) -> Result<&'v str> {
    match text(object, key) {
        Some(word) if is_word(word) => Ok(word),
        _ => wrong(key, &Value::Object(object.clone())),
    }
}

fn is_word(word: &str) -> bool {
    !word.is_empty()
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_./-".contains(&b))
}

fn is_address(text: &str) -> bool {
    addr::parse_ipv4(text).is_some()
        || addr::parse_ipv6(text).is_some()
        || addr::parse_ether(text).is_some()
}

/// Text between quotation marks; nothing in nft's language can stand for a quotation mark itself.
fn quoted(text: &str) -> Result<String> {
    if text.contains(['"', '\n']) {
        return wrong("a string", &Value::String(text.to_owned()));
    }
    Ok(format!("\"{text}\""))
}

fn command(verb: &str, inner: &Value) -> Result<String> {
    let Some((kind, value)) = only(inner) else {
        return wrong("a command", inner);
    };
    if kind == "ruleset" {
        return Ok(format!("{verb} ruleset"));
    }
    let Value::Object(object) = value else {
        return wrong(kind, value);
    };
    let family = word(object, "family")?;
    let adds = matches!(verb, "add" | "create");
    let name = || -> Result<String> {
        match (
            object.get("handle").and_then(Value::as_u64),
            text(object, "name"),
        ) {
            (Some(handle), None) if verb == "delete" => Ok(format!("handle {handle}")),
            _ => Ok(word(object, "name")?.to_owned()),
        }
    };
    if kind == "table" {
        let mut text = format!("{verb} table {family} {}", name()?);
        if adds {
            let mut inner = String::new();
            if object.get("flags").is_some() {
                inner.push_str("flags dormant; ");
            }
            inner.push_str(&comment(object)?);
            if !inner.is_empty() {
                text.push_str(&format!(" {{ {inner}}}"));
            }
        }
        return Ok(text);
    }
    let table = word(object, "table")?;
    let head = format!("{verb} {kind} {family} {table}");
    let body = match kind {
        "chain" if adds => chain(object)?,
        "rule" => return rule(verb, &head, object),
        "set" | "map" if adds => set(object, kind == "map")?,
        "element" => elements(object)?,
        "counter" if adds => format!(
            "{{ {}packets {} bytes {}; }}",
            comment(object)?,
            number(object, "packets"),
            number(object, "bytes")
        ),
        "quota" if adds => format!(
            "{{ {}{}{} bytes used {} bytes; }}",
            comment(object)?,
            if is_true(object, "inv") { "over " } else { "" },
            number(object, "bytes"),
            number(object, "used")
        ),
        "limit" if adds => format!("{{ {}{}; }}", comment(object)?, limit(object)?),
        "chain" | "set" | "map" | "counter" | "quota" | "limit" => String::new(),
        _ => return wrong(kind, value),
    };
    Ok(format!("{head} {} {body}", name()?))
}

fn comment(object: &Object) -> Result<String> {
    match text(object, "comment") {
        Some(comment) => Ok(format!("comment {}; ", quoted(comment)?)),
        None => Ok(String::new()),
    }
}

fn number(object: &Object, key: &str) -> u64 {
    object.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn is_true(object: &Object, key: &str) -> bool {
    object.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn chain(object: &Object) -> Result<String> {
    let mut inner = comment(object)?;
    if let Some(hook) = text(object, "hook") {
        let devices = match object.get("dev") {
            None => String::new(),
            Some(Value::String(device)) => format!("device {} ", quoted(device)?),
            Some(Value::Array(devices)) => {
                let names = devices.iter().map(|d| quoted(d.as_str().unwrap_or("")));
                format!(
                    "devices = {{ {} }} ",
                    names.collect::<Result<Vec<_>>>()?.join(", ")
                )
            }
            Some(other) => return wrong("dev", other),
        };
        let priority = object.get("prio").and_then(Value::as_i64).unwrap_or(0);
        let kind = text(object, "type").unwrap_or("filter");
        inner.push_str(&format!(
            "type {kind} hook {hook} {devices}priority {priority}; "
        ));
        if let Some(policy) = text(object, "policy") {
            inner.push_str(&format!("policy {policy}; "));
        }
    }
    Ok(if inner.is_empty() {
        String::new()
    } else {
        format!("{{ {inner}}}")
    })
}

fn rule(verb: &str, head: &str, object: &Object) -> Result<String> {
    let mut text = format!("{head} {}", word(object, "chain")?);
    let handle = object.get("handle").and_then(Value::as_u64);
    match (verb, handle, object.get("index").and_then(Value::as_u64)) {
        ("replace" | "delete", Some(handle), _) => text.push_str(&format!(" handle {handle}")),
        ("add" | "insert", _, Some(index)) => text.push_str(&format!(" index {index}")),
        _ => {}
    }
    if verb == "delete" {
        return Ok(text);
    }
    let Some(Value::Array(statements)) = object.get("expr") else {
        return wrong("expr", &Value::Object(object.clone()));
    };
    for statement in statements {
        text.push(' ');
        text.push_str(&self::statement(statement)?);
    }
    if let Some(comment) = self::text(object, "comment") {
        text.push_str(&format!(" comment {}", quoted(comment)?));
    }
    Ok(text)
}

fn types(value: &Value) -> Result<String> {
    match value {
        Value::String(name) => Ok(name.clone()),
        Value::Array(names) => {
            let names: Option<Vec<_>> = names.iter().map(Value::as_str).collect();
            names.map_or_else(|| wrong("type", value), |names| Ok(names.join(" . ")))
        }
        _ => wrong("type", value),
    }
}

fn set(object: &Object, is_map: bool) -> Result<String> {
    let mut inner = format!(
        "type {}",
        types(object.get("type").unwrap_or(&Value::Null))?
    );
    if is_map {
        inner.push_str(&format!(
            " : {}",
            types(object.get("map").unwrap_or(&Value::Null))?
        ));
    }
    inner.push_str("; ");
    inner.push_str(&comment(object)?);
    match object.get("flags") {
        Some(Value::String(flag)) => inner.push_str(&format!("flags {flag}; ")),
        Some(Value::Array(flags)) => {
            let flags: Vec<_> = flags.iter().filter_map(Value::as_str).collect();
            inner.push_str(&format!("flags {}; ", flags.join(",")));
        }
        _ => {}
    }
    for (key, unit) in [("timeout", "s"), ("gc-interval", "s"), ("size", "")] {
        if let Some(number) = object.get(key).and_then(Value::as_u64) {
            inner.push_str(&format!("{key} {number}{unit}; "));
        }
    }
    if let Some(policy) = text(object, "policy") {
        inner.push_str(&format!("policy {policy}; "));
    }
    if is_true(object, "auto-merge") {
        inner.push_str("auto-merge; ");
    }
    if let Some(Value::Array(statements)) = object.get("stmt") {
        for statement in statements {
            inner.push_str(&format!("{}; ", self::statement(statement)?));
        }
    }
    if object.get("elem").is_some() {
        inner.push_str(&format!("elements = {}; ", elements(object)?));
    }
    Ok(format!("{{ {inner}}}"))
}

fn elements(object: &Object) -> Result<String> {
    match object.get("elem") {
        Some(Value::Array(elements)) => braces(elements, 0),
        Some(other) => braces(std::slice::from_ref(other), 0),
        None => wrong("elem", &Value::Object(object.clone())),
    }
}

fn braces(elements: &[Value], depth: u32) -> Result<String> {
    let elements: Vec<_> = elements
        .iter()
        .map(|e| element(e, depth))
        .collect::<Result<_>>()?;
    Ok(format!("{{ {} }}", elements.join(", ")))
}

/// An element: a key, or a key and what it maps to.
fn element(value: &Value, depth: u32) -> Result<String> {
    if let Value::Array(pair) = value
        && let [key, data] = pair.as_slice()
    {
        let data = match only(data) {
            Some(("accept" | "drop" | "continue" | "return" | "jump" | "goto", _)) => {
                statement(data)?
            }
            _ => expr(data, depth + 1)?,
        };
        return Ok(format!("{} : {data}", expr(key, depth + 1)?));
    }
    expr(value, depth + 1)
}

fn statement(value: &Value) -> Result<String> {
    let Some((name, inner)) = only(value) else {
        return wrong("a statement", value);
    };
    let field = |key: &str| {
        inner
            .get(key)
            .map_or_else(|| wrong(key, value), |v| expr(v, 0))
    };
    let object = inner.as_object();
    Ok(match (name, object) {
        ("accept" | "drop" | "continue" | "return" | "notrack", _) => name.to_owned(),
        ("last", Some(object)) if object.contains_key("used") => {
            format!("last used {}ms", number(object, "used"))
        }
        ("last", _) => name.to_owned(),
        ("jump" | "goto", Some(object)) => format!("{name} {}", word(object, "target")?),
        ("match", Some(object)) => {
            let op = match text(object, "op") {
                Some("in") | None => "",
                Some("==")
                    if matches!(
                        only(inner.get("left").unwrap_or(&Value::Null)),
                        Some(("meta", _))
                    ) =>
                {
                    ""
                }
                Some(op @ ("==" | "!=" | "<" | ">" | "<=" | ">=" | "!")) => op,
                Some(_) => return wrong("op", inner),
            };
            let right = match object.get("right") {
                Some(Value::Array(flags)) => list(flags, ",")?,
                Some(right) => expr(right, 0)?,
                None => return wrong("right", value),
            };
            let mut left = field("left")?;
            if matches!(object.get("right"), Some(Value::Bool(_)))
                && let Some(kind) = left
                    .strip_prefix("tcp option @")
                    .and_then(|option| option.strip_suffix(",0,8"))
            {
                // Whether an option without a name is there.
                left = format!("tcp option {kind}");
            }
            format!("{left} {op} {right}")
        }
        ("counter", None) if inner.is_null() => name.to_owned(),
        ("counter", Some(object)) if !object.contains_key("map") => {
            format!(
                "counter packets {} bytes {}",
                number(object, "packets"),
                number(object, "bytes")
            )
        }
        ("counter" | "quota" | "limit", None) => format!("{name} name {}", expr(inner, 0)?),
        ("counter" | "quota" | "limit", Some(object)) if object.contains_key("map") => {
            format!("{name} name {}", expr(inner, 0)?)
        }
        ("limit", Some(object)) => format!("limit {}", limit(object)?),
        ("quota", Some(object)) => {
            let over = if is_true(object, "inv") { "over " } else { "" };
            let unit = text(object, "val_unit").unwrap_or("bytes");
            let used_unit = text(object, "used_unit").unwrap_or("bytes");
            format!(
                "quota {over}{} {unit} used {} {used_unit}",
                number(object, "val"),
                number(object, "used")
            )
        }
        ("log", _) => log(inner)?,
        ("mangle", Some(_)) => format!("{} set {}", field("key")?, field("value")?),
        ("vmap", Some(_)) => format!("{} vmap {}", field("key")?, field("data")?),
        ("dup", Some(_)) => format!("dup to {}", field("addr")?),
        ("redirect", Some(object)) if object.contains_key("dev") => {
            format!("redirect to {}", field("dev")?)
        }
        ("reject", None) if inner.is_null() => name.to_owned(),
        ("reject", Some(object)) => match (text(object, "type"), object.get("expr")) {
            (Some("tcp reset"), None) => "reject with tcp reset".to_owned(),
            (Some(kind @ ("icmp" | "icmpv6" | "icmpx")), Some(_)) => {
                format!("reject with {kind} {}", field("expr")?)
            }
            _ => return wrong(name, inner),
        },
        ("fwd", Some(object)) => match text(object, "family") {
            None => format!("fwd to {}", field("dev")?),
            Some(family) => format!(
                "fwd {family} to {} device {}",
                field("addr")?,
                field("dev")?
            ),
        },
        ("set" | "map", Some(object)) => {
            let mut inside = field("elem")?;
            if let Some(Value::Array(statements)) = object.get("stmt") {
                for statement in statements {
                    inside.push(' ');
                    inside.push_str(&self::statement(statement)?);
                }
            }
            if object.contains_key("data") {
                inside.push_str(&format!(" : {}", field("data")?));
            }
            let target = text(object, name).unwrap_or("");
            let op = text(object, "op").unwrap_or("add");
            if !target.starts_with('@') || !is_word(target.trim_start_matches('@')) || !is_word(op)
            {
                return wrong(name, inner);
            }
            format!("{op} {target} {{ {inside} }}")
        }
        ("meter", Some(object)) => {
            let size = match object.get("size").and_then(Value::as_u64) {
                Some(size) => format!(" size {size}"),
                None => String::new(),
            };
            let statement = object.get("stmt").unwrap_or(&Value::Null);
            format!(
                "meter {}{size} {{ {} {} }}",
                word(object, "name")?,
                field("key")?,
                self::statement(statement)?
            )
        }
        ("reset", Some(_)) => format!("reset {}", expr(inner, 0)?),
        _ => return wrong("a statement", value),
    })
}

fn limit(object: &Object) -> Result<String> {
    let over = if is_true(object, "inv") { "over " } else { "" };
    let per = word(object, "per")?;
    let (rate, burst) = (
        number(object, "rate"),
        object.get("burst").and_then(Value::as_u64),
    );
    Ok(match text(object, "rate_unit") {
        Some(unit) if unit != "packets" => {
            let burst_unit = text(object, "burst_unit").unwrap_or("bytes");
            let burst = burst
                .map(|b| format!(" burst {b} {burst_unit}"))
                .unwrap_or_default();
            format!("rate {over}{rate} {unit}/{per}{burst}")
        }
        _ => {
            let burst = burst
                .map(|b| format!(" burst {b} packets"))
                .unwrap_or_default();
            format!("rate {over}{rate}/{per}{burst}")
        }
    })
}

fn log(inner: &Value) -> Result<String> {
    let mut out = "log".to_owned();
    let Some(object) = inner.as_object() else {
        return Ok(out);
    };
    for (key, value) in object {
        match (key.as_str(), value) {
            ("prefix", Value::String(prefix)) => {
                out.push_str(&format!(" prefix {}", quoted(prefix)?))
            }
            ("level", Value::String(level)) if is_word(level) => {
                out.push_str(&format!(" level {level}"));
            }
            ("group" | "snaplen" | "queue-threshold", Value::Number(number)) => {
                out.push_str(&format!(" {key} {number}"));
            }
            ("flags", Value::String(flag)) => out.push_str(&format!(" flags {flag}")),
            ("flags", Value::Array(flags)) => {
                for flag in flags.iter().filter_map(Value::as_str) {
                    out.push_str(&format!(" flags {flag}"));
                }
            }
            _ => return wrong("log", inner),
        }
    }
    Ok(out)
}

fn list(items: &[Value], separator: &str) -> Result<String> {
    let items: Vec<_> = items
        .iter()
        .map(|item| expr(item, 1))
        .collect::<Result<_>>()?;
    Ok(items.join(separator))
}

/// The end of a range, or what a prefix is of: names would run into one word with what follows.
fn end(value: &Value, depth: u32) -> Result<String> {
    match value {
        Value::String(name)
            if name.starts_with(|c: char| c.is_ascii_alphabetic()) && !is_address(name) =>
        {
            quoted(name)
        }
        other => expr(other, depth + 1),
    }
}

fn expr(value: &Value, depth: u32) -> Result<String> {
    if depth > MAX_DEPTH {
        return wrong("nesting", &Value::Null);
    }
    match value {
        Value::Number(number) => return Ok(number.to_string()),
        Value::Bool(exists) => return Ok(if *exists { "exists" } else { "missing" }.to_owned()),
        Value::String(text) if text == "*" || text.starts_with('@') => return Ok(text.clone()),
        Value::String(text) if is_word(text) => return Ok(text.clone()),
        // Addresses may stand without quotation marks, and must.
        Value::String(text) if is_address(text) => return Ok(text.clone()),
        Value::String(text) => return quoted(text),
        Value::Array(items) => return Ok(format!("({})", list(items, " | ")?)),
        _ => {}
    }
    let Some((name, inner)) = only(value) else {
        return wrong("an expression", value);
    };
    let object = inner.as_object();
    let items = inner.as_array().map(Vec::as_slice);
    Ok(match (name, object, items) {
        ("payload", Some(object), _) => match text(object, "protocol") {
            Some("icmpv6") if text(object, "field") == Some("parameter-problem") => {
                "icmpv6 param-problem".to_owned()
            }
            Some(protocol) => {
                // Of a tunnel's own header its word stands there once.
                let tunnel = text(object, "tunnel").filter(|tunnel| *tunnel != protocol);
                let tunnel = tunnel.map_or(String::new(), |tunnel| format!("{tunnel} "));
                format!("{tunnel}{protocol} {}", text(object, "field").unwrap_or(""))
            }
            None => format!(
                "@{},{},{}",
                word(object, "base")?,
                number(object, "offset"),
                number(object, "len")
            ),
        },
        ("meta", Some(object), _) => format!("meta {}", word(object, "key")?),
        ("fib", Some(object), _) => {
            let flags = match object.get("flags") {
                Some(Value::String(flag)) => flag.clone(),
                Some(Value::Array(flags)) => {
                    let flags: Vec<_> = flags.iter().filter_map(Value::as_str).collect();
                    flags.join(" . ")
                }
                _ => return wrong("flags", value),
            };
            format!("fib {flags} {}", word(object, "result")?)
        }
        ("exthdr" | "tcp option" | "ip option" | "sctp chunk", Some(object), _) => {
            let family = match (name, object.contains_key("field")) {
                ("exthdr", true) => "",
                (name, _) => name,
            };
            match (text(object, "name"), text(object, "field")) {
                (Some(option), Some(field)) => format!("{family} {option} {field}"),
                (Some(option), None) => format!("{family} {option}"),
                (None, _) if object.contains_key("len") => format!(
                    "{family} @{},{},{}",
                    number(object, "base"),
                    number(object, "offset"),
                    number(object, "len")
                ),
                (None, _) => format!("{family} {}", number(object, "base")),
            }
        }
        ("numgen" | "jhash" | "symhash", Some(object), _) => {
            let mut out = name.to_owned();
            if let Some(mode) = text(object, "mode") {
                out.push_str(&format!(" {mode}"));
            }
            if let Some(of) = object.get("expr") {
                out.push_str(&format!(" {}", expr(of, depth + 1)?));
            }
            out.push_str(&format!(" mod {}", number(object, "mod")));
            for key in ["seed", "offset"] {
                if let Some(number) = object.get(key).and_then(Value::as_u64) {
                    out.push_str(&format!(" {key} {number}"));
                }
            }
            out
        }
        ("concat", _, Some(items)) => {
            let parts: Vec<_> = items
                .iter()
                .map(|i| expr(i, depth + 1))
                .collect::<Result<_>>()?;
            parts.join(" . ")
        }
        ("set", _, Some(items)) => braces(items, depth + 1)?,
        ("map", Some(object), _) => {
            let part = |key: &str| {
                object
                    .get(key)
                    .map_or_else(|| wrong(key, value), |v| expr(v, depth + 1))
            };
            format!("{} map {}", part("key")?, part("data")?)
        }
        ("prefix", Some(object), _) => {
            let address = object.get("addr").unwrap_or(&Value::Null);
            format!("{}/{}", end(address, depth)?, number(object, "len"))
        }
        ("range", _, Some([low, high])) => {
            format!("{}-{}", end(low, depth)?, end(high, depth)?)
        }
        ("elem", Some(object), _) => {
            let key = object.get("val").unwrap_or(&Value::Null);
            let mut out = expr(key, depth + 1)?;
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("timeout" | "expires", Value::Number(n)) => {
                        out.push_str(&format!(" {key} {n}s"))
                    }
                    ("comment", Value::String(c)) => {
                        out.push_str(&format!(" comment {}", quoted(c)?))
                    }
                    ("counter" | "limit" | "quota" | "last", inner) => {
                        let one =
                            Value::Object([(key.clone(), inner.clone())].into_iter().collect());
                        out.push_str(&format!(" {}", statement(&one)?));
                    }
                    _ => {}
                }
            }
            out
        }
        ("&" | "|" | "^" | "<<" | ">>", _, Some(items)) => {
            let items: Vec<_> = items
                .iter()
                .map(|i| expr(i, depth + 1))
                .collect::<Result<_>>()?;
            format!("({})", items.join(&format!(" {name} ")))
        }
        _ => return wrong("an expression", value),
    })
}
