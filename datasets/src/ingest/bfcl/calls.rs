//! Calls written as in Python: `cd(folder='document')`.

use std::collections::BTreeMap;

use serde_json::Map;

use crate::episode::Call;
use crate::literal;

/// Reads one call. Positional arguments get their names from `order`: names of parameters by
/// function.
///
/// # Errors
/// When the text is no call of literals. The reason does not quote it.
pub(super) fn parse(text: &str, order: &BTreeMap<String, Vec<String>>) -> Result<Call, String> {
    let (name, mut rest) = text.trim().split_once('(').ok_or("no parenthesis opens")?;
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    if name.is_empty() || !name.chars().all(is_name) {
        return Err("no name of a function before the parenthesis".to_owned());
    }
    let mut arguments = Map::new();
    let mut place = 0;
    loop {
        rest = rest.trim_start();
        if let Some(behind) = rest.strip_prefix(')') {
            rest = behind;
            break;
        }
        let (keyword, value) = keyword(rest);
        let named = match keyword {
            Some(keyword) => keyword.to_owned(),
            None => {
                let names = order.get(name).ok_or("a function without a document")?;
                names.get(place).cloned().ok_or("more arguments than parameters")?
            }
        };
        place += 1;
        let (read, length, _) = literal::parse_prefix(value)
            .map_err(|error| format!("argument {place} is no literal: {}", error.reason))?;
        if arguments.insert(named, read).is_some() {
            return Err("an argument is given twice".to_owned());
        }
        rest = value.get(length..).unwrap_or_default().trim_start();
        match rest.strip_prefix(',') {
            Some(behind) => rest = behind,
            None if rest.starts_with(')') => {}
            None => return Err(format!("neither comma nor end behind argument {place}")),
        }
    }
    if !rest.trim().is_empty() {
        return Err("text goes on behind the call".to_owned());
    }
    Ok(Call { name: name.to_owned(), arguments })
}

/// Splits `name=value` at its sign, where a name stands before one.
fn keyword(text: &str) -> (Option<&str>, &str) {
    let Some((name, value)) = text.split_once('=') else {
        return (None, text);
    };
    let name = name.trim_end();
    let mut letters = name.chars();
    let is_first = letters.next().is_some_and(|c| c.is_alphabetic() || c == '_');
    if is_first && letters.all(|c| c.is_alphanumeric() || c == '_') {
        (Some(name), value.trim_start())
    } else {
        (None, text)
    }
}
