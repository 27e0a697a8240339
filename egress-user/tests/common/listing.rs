//! Listings that are compared.

/// A listing without what depends on the moment.
pub fn steady(listing: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut skip = false;
    for word in listing.split_whitespace() {
        let expires = word == "expires";
        if skip {
            if word.ends_with(',') {
                words.push(",");
            }
        } else if !expires && !word.starts_with('#') {
            words.push(word);
        }
        skip = expires;
    }
    // Elements stand in the order in which a hash table has them.
    let text = words.join(" ").replace(" ,", ",");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some((before, behind)) = rest.split_once("elements = { ") {
        let (inside, behind) = behind.split_once(" }").expect("a brace");
        // Older kernels also say a timeout that is the set's.
        let inside = inside.replace(" timeout 1h", "");
        let mut elements: Vec<&str> = inside.split(", ").collect();
        elements.sort_unstable();
        out.push_str(&format!("{before}elements = {{ {} }}", elements.join(", ")));
        rest = behind;
    }
    out + rest
}
