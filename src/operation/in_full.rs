//! Errors in words.

/// An error with its causes, in one line: for a place where it is a fact among others.
pub(in crate::operation) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
