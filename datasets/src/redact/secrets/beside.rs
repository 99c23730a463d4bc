//! Secrets that are told by what stands beside them: places of webhooks, headers, options.

use super::{VALUE_MAX, alnum, is_strong, is_varied, is_word, normal, url_safe};
use crate::redact::scan::Text;

/// Least length of a value behind a name that has other meanings, too.
pub(super) const WEAK_MIN: usize = 16;
/// Bytes behind the colon of a Telegram bot's token.
const BOT: usize = 35;
/// How far before an option its command is looked for.
const COMMAND_MAX: usize = 400;
/// Least length of a webhook's path.
const WEBHOOK_MIN: usize = 20;

/// Where webhooks lie: who knows what follows may post.
const WEBHOOKS: [&str; 5] = [
    "hooks.slack.com/services/",
    "hooks.slack.com/workflows/",
    "hooks.slack.com/triggers/",
    "discord.com/api/webhooks/",
    "discordapp.com/api/webhooks/",
];

/// Schemes of databases and queues, whose passwords are written with a `/` in them.
const DATABASES: [&str; 13] = [
    "postgres",
    "postgresql",
    "mysql",
    "mariadb",
    "mongodb",
    "srv",
    "redis",
    "rediss",
    "amqp",
    "amqps",
    "mssql",
    "sqlserver",
    "clickhouse",
];

/// Parts of the names of cookies that let somebody in.
const COOKIES: [&str; 8] = ["sess", "sid", "auth", "token", "jwt", "login", "csrf", "xsrf"];

/// Finds `<digits>:AA...`, or the path of a webhook.
pub(super) fn bot_or_webhook(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    if text.byte(at).is_ascii_digit() {
        let colon = text.run_most(at, 13, |byte| byte.is_ascii_digit());
        let is_id = (6..=12).contains(&(colon - at)) && text.byte(colon) == b':';
        return is_id.then(|| bot(text, colon + 1)).flatten().map(|end| (at, end));
    }
    let place = WEBHOOKS.iter().find(|place| text.has(at, place))?;
    let start = at + place.len();
    let end = text.run(start, |byte| url_safe(byte) || byte == b'/');
    let path = text.part(start, end).trim_end_matches('/');
    (path.len() >= WEBHOOK_MIN && is_varied(path)).then_some((start, start + path.len()))
}

/// Finds the token of a bot in `/bot<digits>:AA...`, at the colon.
pub(super) fn bot_in_url(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    let end = text.before(at).is_ascii_digit().then(|| bot(text, at + 1))?;
    end.map(|end| (at + 1, end))
}

fn bot(text: &Text<'_>, start: usize) -> Option<usize> {
    let end = text.run_most(start, BOT + 1, url_safe);
    let is_token = end - start == BOT && text.has(start, "AA");
    (is_token && is_varied(text.part(start, end))).then_some(end)
}

/// Says whether a name may announce a secret where it stands, if the value looks like one.
pub(super) fn may_be_secret(text: &Text<'_>, at: usize, name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "cookie" | "set-cookie" | "auth" => true,
        // Parameters of a query: a key, or the signature of a shared access.
        "key" | "sig" => {
            matches!(text.before(at), b'?' | b'&') || text.lead(at, 5).ends_with("&amp;")
        }
        // A variable of the environment.
        _ => {
            let is_variable =
                name.bytes().all(|b| b.is_ascii_uppercase() || b"_0123456789".contains(&b));
            let is_known = ["public", "primary", "foreign", "partition", "sort", "cache"];
            is_variable && name.ends_with("_KEY") && !is_known.iter().any(|no| lower.contains(no))
        }
    }
}

/// Finds the values of session cookies in a header, the first to the last of them.
pub(super) fn cookies(text: &Text<'_>, start: usize) -> Option<(usize, usize)> {
    let ends = |b: u8| b"\"'`\\\n\r[]<>{}".contains(&b);
    let end = text.run_most(start, 4 * VALUE_MAX, |byte| !ends(byte));
    let (mut found, mut at): (Option<(usize, usize)>, usize) = (None, start);
    for pair in text.part(start, end).split(';') {
        let pair_start = at;
        at += pair.len() + 1;
        let Some((name, value)) = pair.split_once('=') else { continue };
        let name_of = normal(name);
        let value_of = value.trim_end();
        let opens = COOKIES.iter().any(|part| name_of.contains(part));
        if opens && value_of.len() <= VALUE_MAX && is_strong(value_of, true) {
            let from = pair_start + name.len() + 1;
            let first = found.map_or(from, |(first, _)| first);
            found = Some((first, from + value_of.len()));
        }
    }
    found
}

/// Finds the Base64 of `user:password` behind `"auth":`, as in Docker's settings.
pub(super) fn encoded_login(text: &Text<'_>, start: usize, quote: u8) -> Option<(usize, usize)> {
    let end = text.run_most(start, VALUE_MAX, |b| alnum(b) || b"+/=".contains(&b));
    let is_closed = text.byte(end) == quote || text.byte(end) == b'\\';
    let plain = decode(text.part(start, end))?;
    let (user, password) = plain.split_once(':')?;
    (is_closed && !user.is_empty() && !password.is_empty()).then_some((start, end))
}

/// Decodes Base64 into a text of ASCII without control characters.
fn decode(value: &str) -> Option<String> {
    let (mut bits, mut held, mut plain) = (0_u32, 0_u32, String::new());
    for byte in value.trim_end_matches('=').bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (held, bits) = ((held << 6 | u32::from(six)) & 0xffff, bits + 6);
        if bits >= 8 {
            bits -= 8;
            let byte = u8::try_from(held >> bits & 0xff).ok()?;
            if !(b' '..=b'~').contains(&byte) {
                return None;
            }
            plain.push(char::from(byte));
        }
    }
    Some(plain)
}

/// Finds the password in `curl -u user:password`, at the option's first dash.
pub(super) fn user_option(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    let option = ["-u ", "--user ", "-u=", "--user="].iter().find(|o| text.has(at, o))?;
    let is_option = text.before(at).is_ascii_whitespace();
    if !is_option || !text.lead(at, COMMAND_MAX).contains("curl ") {
        return None;
    }
    let start = at + option.len();
    let start = start + usize::from(matches!(text.byte(start), b'"' | b'\''));
    let ends = |b: u8| b.is_ascii_whitespace() || b"\"'`<>()[]{}|\\$;".contains(&b);
    let end = text.run_most(start, VALUE_MAX, |byte| !ends(byte));
    let (user, password) = text.part(start, end).split_once(':')?;
    let is_plain = !matches!(text.byte(end), b'<' | b'[' | b'{' | b'$' | b'(');
    let is_shown = ["password", "pass", "passwd"].contains(&password.to_ascii_lowercase().as_str());
    let from = start + user.len() + 1;
    (is_plain && !is_shown && password.len() >= 4).then_some((from, end))
}

/// Finds a password with `/` in the address of a database. `at` is the colon of the scheme, and
/// `slash` where the host would end without one.
pub(super) fn password_with_slash(
    text: &Text<'_>,
    at: usize,
    slash: usize,
) -> Option<(usize, usize)> {
    let lead = text.lead(at, 12);
    let scheme = lead.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    if text.byte(slash) != b'/' || !DATABASES.contains(&scheme.to_ascii_lowercase().as_str()) {
        return None;
    }
    let start = at + 3;
    // Digits before the slash are a port, and what follows a path.
    let (name, first) = text.part(start, slash).split_once(':')?;
    if !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let ends = |b: u8| b.is_ascii_whitespace() || b"\"'`<>\\[]{}(),;|".contains(&b);
    let end = text.run_most(start, VALUE_MAX, |byte| !ends(byte));
    let (user, _) = text.part(start, end).rsplit_once('@')?;
    let from = start + name.len() + 1;
    (user.len() > name.len() + 1 && is_word_in(user)).then_some((from, start + user.len()))
}

fn is_word_in(text: &str) -> bool {
    text.bytes().any(is_word)
}
