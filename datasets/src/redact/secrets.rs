//! Keys, tokens and passwords: by the form that their issuers give them, or by what stands before.

use std::sync::LazyLock;

use super::scan::{NOTHING, Text, has_placeholder, is_word};

mod beside;
mod strength;

use strength::{is_strong, is_varied};

/// Longest value that is read behind a name.
const VALUE_MAX: usize = 512;
/// Longest name before a value.
const NAME_MAX: usize = 64;
/// Most spaces between a name, its sign and its value.
const GAP_MAX: usize = 4;
/// Base64 letters in one line by which a block is taken for a key.
const KEY_LINE_MIN: usize = 32;

/// A form that tells a token by its first letters.
struct Form {
    prefix: &'static str,
    /// Least and most bytes behind the prefix.
    length: (usize, usize),
    is: fn(u8) -> bool,
}

const fn form(prefix: &'static str, length: (usize, usize), is: fn(u8) -> bool) -> Form {
    Form { prefix, length, is }
}

fn alnum(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn url_safe(byte: u8) -> bool {
    is_word(byte) || byte == b'-'
}

fn dotted(byte: u8) -> bool {
    url_safe(byte) || byte == b'.'
}

fn hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

const ANY: usize = usize::MAX;

/// Forms as their issuers document them, by first letter.
const FORMS: &[Form] = &[
    // Amazon: key ids of users and of temporary credentials.
    form("AKIA", (16, 16), upper),
    form("ASIA", (16, 16), upper),
    form("ABIA", (16, 16), upper),
    form("ACCA", (16, 16), upper),
    // Google: keys, client secrets and access tokens.
    form("AIza", (35, 39), url_safe),
    form("GOCSPX-", (20, ANY), url_safe),
    form("ya29.", (20, ANY), dotted),
    // SendGrid.
    form("SG.", (40, ANY), dotted),
    // GitHub and GitLab.
    form("ghp_", (36, ANY), alnum),
    form("gho_", (36, ANY), alnum),
    form("ghu_", (36, ANY), alnum),
    form("ghs_", (36, ANY), alnum),
    form("ghr_", (36, ANY), alnum),
    form("github_pat_", (22, ANY), is_word),
    form("glpat-", (20, ANY), url_safe),
    // Groq, Hugging Face, NVIDIA, Perplexity, Replicate, xAI.
    form("gsk_", (40, ANY), alnum),
    form("hf_", (30, ANY), alnum),
    form("api_org_", (30, ANY), alnum),
    form("nvapi-", (40, ANY), url_safe),
    form("pplx-", (40, ANY), alnum),
    form("r8_", (30, ANY), alnum),
    form("xai-", (40, ANY), alnum),
    // npm.
    form("npm_", (36, ANY), alnum),
    // Stripe.
    form("rk_live_", (16, ANY), alnum),
    form("rk_test_", (16, ANY), alnum),
    form("sk_live_", (16, ANY), alnum),
    form("sk_test_", (16, ANY), alnum),
    form("whsec_", (24, ANY), alnum),
    // Slack.
    form("xapp-", (20, ANY), url_safe),
    form("xoxa-", (20, ANY), url_safe),
    form("xoxb-", (20, ANY), url_safe),
    form("xoxe-", (20, ANY), url_safe),
    form("xoxo-", (20, ANY), url_safe),
    form("xoxp-", (20, ANY), url_safe),
    form("xoxr-", (20, ANY), url_safe),
    form("xoxs-", (20, ANY), url_safe),
    // age, Databricks, DigitalOcean, HashiCorp Vault, Linear, Mailgun, Notion, PyPI, Vercel.
    form("AGE-SECRET-KEY-1", (50, ANY), upper),
    form("dapi", (32, 32), hex),
    form("dop_v1_", (40, ANY), alnum),
    form("hvs.", (20, ANY), url_safe),
    form("hvb.", (20, ANY), url_safe),
    form("lin_api_", (32, ANY), alnum),
    form("key-", (32, 32), hex),
    form("ntn_", (40, ANY), alnum),
    form("secret_", (40, ANY), alnum),
    form("pypi-", (40, ANY), url_safe),
    form("vercel_blob_rw_", (20, ANY), is_word),
    // Shopify.
    form("shpat_", (32, 32), hex),
    form("shpca_", (32, 32), hex),
    form("shppa_", (32, 32), hex),
    form("shpss_", (32, 32), hex),
    // Langfuse.
    form("pk-lf-", (36, 36), url_safe),
];

/// The forms by the letter that they begin with.
static BY_LETTER: LazyLock<Vec<Vec<&Form>>> = LazyLock::new(|| {
    let of = |letter: u8| {
        FORMS.iter().filter(move |form| form.prefix.as_bytes().first() == Some(&letter))
    };
    (0..=u8::MAX).map(|letter| of(letter).collect()).collect()
});

/// Ends of names (letters and digits only, in lower case) whose values are secret.
const NAMES: [&str; 19] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "secretkey",
    "apikey",
    "accesskey",
    "accesskeyid",
    "accountkey",
    "authkey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "token",
    "credential",
    "credentials",
    "apitoken",
    "authorization",
];

/// Says whether a member's name tells that its whole text is secret.
pub(super) fn is_whole(text: &Text<'_>) -> bool {
    let all = text.text;
    !text.key.is_empty()
        && is_secret_name(text.key)
        && !has_placeholder(all)
        && all == all.trim()
        && is_strong(all, true)
}

/// Returns the next place at which [`find`] may find something, or a placeholder may begin.
pub(super) fn next_start(text: &Text<'_>, at: usize) -> usize {
    let mut before = text.before(at);
    let rest = text.text.as_bytes().get(at..).unwrap_or_default();
    let starts = |&byte: &u8| {
        let starts = matches!(byte, b'[' | b'-' | b':') || (alnum(byte) && !alnum(before));
        before = byte;
        starts
    };
    at + rest.iter().position(starts).unwrap_or(rest.len())
}

/// Finds a secret that begins at a place or behind the name that begins there.
pub(super) fn find(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    let (byte, before) = (text.byte(at), text.before(at));
    if byte == b'-' {
        return private_key(text, at).or_else(|| beside::user_option(text, at));
    }
    if byte == b':' {
        return password_in_url(text, at).or_else(|| beside::bot_in_url(text, at));
    }
    if !alnum(byte) || alnum(before) {
        return None;
    }
    let token = || token(text, at).or_else(|| beside::bot_or_webhook(text, at));
    let token = (!url_safe(before)).then(token).flatten();
    token.or_else(|| if before == b'_' { None } else { assigned(text, at) })
}

/// Finds a token by its form.
fn token(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    if text.has(at, "sk-") {
        return secret_key(text, at);
    }
    if text.has(at, "eyJ") {
        return web_token(text, at);
    }
    let forms = BY_LETTER.get(usize::from(text.byte(at))).map(Vec::as_slice).unwrap_or_default();
    forms.iter().find_map(|form| {
        if !text.has(at, form.prefix) || (form.is)(text.before(at)) {
            return None;
        }
        let start = at + form.prefix.len();
        let mut end = text.run(start, form.is);
        // A full stop, or a dash, ends the sentence and not the token.
        while matches!(text.byte(end - 1), b'.' | b'-') && end > start {
            end -= 1;
        }
        let (least, most) = form.length;
        let fits = (least..=most).contains(&(end - start)) && !is_word(text.byte(end));
        (fits && is_varied(text.part(start, end))).then_some((at, end))
    })
}

/// Finds `sk-...`, as OpenAI, Anthropic, Langfuse and others write keys.
fn secret_key(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    let mut end = text.run(at, url_safe);
    while text.byte(end - 1) == b'-' && end > at {
        end -= 1;
    }
    let value = text.part(at, end).strip_prefix("sk-")?;
    let has = |is: fn(&u8) -> bool| value.bytes().any(|byte| is(&byte));
    let digit = has(u8::is_ascii_digit);
    let mixed = digit && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
    let parts = || value.split(['-', '_']);
    let long = parts().any(|part| part.len() >= 16 && part.bytes().any(|b| b.is_ascii_digit()));
    let is_uuid = value.starts_with("lf-") && value.len() == 39;
    let is_key = value.len() >= 20 && (mixed || (long && digit) || is_uuid);
    (is_key && is_varied(value)).then_some((at, end))
}

/// Finds a JSON Web Token: three parts of Base64, of which the first two begin as `{"` does.
fn web_token(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    let head = text.run(at, url_safe);
    if head < at + 12 || text.byte(head) != b'.' {
        return None;
    }
    let body = text.run(head + 1, url_safe);
    if body < head + 11 || text.byte(body) != b'.' {
        return None;
    }
    Some((at, text.run(body + 1, url_safe)))
}

/// Finds what a name such as `password=`, `api_key: ` or `Authorization: Bearer ` announces.
fn assigned(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    let end = name_end(text, at)?;
    let name = text.part(at, end);
    if name.eq_ignore_ascii_case("bearer") {
        let start = text.run(end, |byte| byte == b' ');
        return (start > end).then(|| bearer(text, start)).flatten();
    }
    // Looked at first, because no value follows most words.
    let (start, quote) = value_start(text, end)?;
    let is_weak = !is_secret_name(name);
    if is_weak && !beside::may_be_secret(text, at, name) {
        return None;
    }
    match name.to_ascii_lowercase().as_str() {
        "cookie" | "set-cookie" => return beside::cookies(text, start),
        "auth" => return beside::encoded_login(text, start, quote?),
        _ => {}
    }
    if normal(name).ends_with("authorization") {
        // Behind such a byte stands a value, which the name before it was asked for.
        return if is_credential(text.before(at)) { None } else { credentials(text, start) };
    }
    let end = match quote {
        // Other marks may stand inside quotes.
        Some(quote) => {
            let end =
                text.run_most(start, VALUE_MAX + 1, |b| b != quote && !matches!(b, b'\\' | b'\n'));
            (text.byte(end) == quote || text.byte(end) == b'\\').then_some(end)?
        }
        None => {
            // A full-width sign stands in a text whose words follow a value without a space.
            let is_wide = !text.byte(start - 1).is_ascii();
            let ends = |b: u8| {
                b.is_ascii_whitespace()
                    || b"\"'`,;<>()[]{}|\\".contains(&b)
                    || (is_wide && !b.is_ascii())
            };
            let end = text.run_most(start, VALUE_MAX + 1, |b| !ends(b));
            let value = before_parameter(text.part(start, end), text.byte(end));
            start + value.trim_end_matches(['.', ':', '?']).len()
        }
    };
    let value = text.part(start, end);
    // A call, an index or a template follows: this is code, and the value a name in it.
    let is_code = quote.is_none() && matches!(text.byte(end), b'(' | b'[' | b'{' | b'<');
    let is_long = !is_weak || value.len() >= beside::WEAK_MIN;
    let fits = value.len() <= VALUE_MAX && is_long && !is_code && is_strong(value, quote.is_some());
    fits.then_some((start, end))
}

/// Cuts a value where the next parameter of a query (`&name=`) or an escaped mark (`&quot;`)
/// begins; another `&` may be part of a password. `next` stands behind the value.
fn before_parameter(value: &str, next: u8) -> &str {
    for (at, _) in value.match_indices('&') {
        let rest = value.get(at + 1..).unwrap_or_default();
        let name = rest.bytes().take_while(|&b| is_word(b) || matches!(b, b'-' | b'.')).count();
        let ends = rest.is_empty() || (name == rest.len() && next == b';');
        if ends || (name > 0 && rest.as_bytes().get(name) == Some(&b'=')) {
            return value.get(..at).unwrap_or_default();
        }
    }
    value
}

/// Returns the end of a name that begins at a place, with a second word as in `api key`.
fn name_end(text: &Text<'_>, at: usize) -> Option<usize> {
    let is_name = |byte: u8| is_word(byte) || matches!(byte, b'-' | b'.');
    let end = text.run_most(at, NAME_MAX + 1, is_name);
    if end - at > NAME_MAX {
        return None;
    }
    let (first, second) = (text.part(at, end), end + 1);
    let leads = ["api", "access", "secret", "private", "auth"];
    if text.byte(end) == b' ' && leads.iter().any(|lead| first.eq_ignore_ascii_case(lead)) {
        let last = text.run_most(second, 6, |byte| byte.is_ascii_alphabetic());
        let word = text.part(second, last);
        if word.eq_ignore_ascii_case("key") || word.eq_ignore_ascii_case("token") {
            return Some(last);
        }
    }
    Some(end)
}

/// Returns where the value behind a name starts, and the quote before it.
fn value_start(text: &Text<'_>, end: usize) -> Option<(usize, Option<u8>)> {
    let gap = |at: usize| (0..GAP_MAX).fold(at, |at, _| at + usize::from(text.byte(at) == b' '));
    let quote = |at: usize| {
        let at = at + usize::from(text.byte(at) == b'\\');
        let byte = text.byte(at);
        matches!(byte, b'"' | b'\'' | b'`').then_some((at + 1, byte))
    };
    let closed = quote(end).map_or(end, |(at, _)| at);
    let sign = gap(closed);
    let signs = [":=", "=>", "==", "=", ":", "：", "＝", "is:", "is ", "to "];
    let found = signs.iter().find(|sign_text| text.has(sign, sign_text));
    let at = match found {
        Some(found) if found.ends_with(' ') && sign == closed => return None,
        Some(found) => gap(sign + found.len()),
        // `password "..."`: the quotes tell.
        None if sign > closed && closed == end && quote(sign).is_some() => sign,
        None => return None,
    };
    let at = at + usize::from(text.byte(at) == b'[' && quote(at + 1).is_some());
    Some(quote(at).map_or((at, None), |(at, quote)| (at, Some(quote))))
}

/// Finds the token behind `Bearer `.
fn bearer(text: &Text<'_>, start: usize) -> Option<(usize, usize)> {
    let end = text.run(start, is_credential);
    let value = text.part(start, end).trim_end_matches(['.', '-']);
    let has = |is: fn(&u8) -> bool| value.bytes().any(|byte| is(&byte));
    let is_token = has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic);
    (value.len() >= 16 && is_token && is_varied(value)).then_some((start, start + value.len()))
}

/// Finds what stands in a header of credentials, behind its scheme.
fn credentials(text: &Text<'_>, start: usize) -> Option<(usize, usize)> {
    let scheme = text.run(start, |byte| byte.is_ascii_alphabetic());
    let schemes = ["basic", "bearer", "token", "digest", "apikey", "key"];
    let is_scheme = schemes.contains(&text.part(start, scheme).to_ascii_lowercase().as_str());
    let start = if is_scheme && text.byte(scheme) == b' ' { scheme + 1 } else { start };
    let end = text.run(start, is_credential);
    let value = text.part(start, end).trim_end_matches(['.', '-']);
    let has = |is: fn(&u8) -> bool| value.bytes().any(|byte| is(&byte));
    let mixed = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
    let is_token = has(u8::is_ascii_digit) || value.ends_with('=') || (is_scheme && mixed);
    let fits = value.len() >= 8 && has(u8::is_ascii_alphabetic) && is_token && is_varied(value);
    fits.then_some((start, start + value.len()))
}

/// Says whether a byte may stand in the credentials of a header (RFC 7235, token68).
fn is_credential(byte: u8) -> bool {
    alnum(byte) || b"-._~+/=".contains(&byte)
}

fn is_secret_name(name: &str) -> bool {
    let name = normal(name);
    NAMES.iter().any(|known| name.ends_with(known))
}

fn normal(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|c| c.to_ascii_lowercase()).collect()
}

/// Finds the password of `scheme://user:password@host`, at the colon of the scheme.
fn password_in_url(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    if !text.has(at, "://") || !alnum(text.before(at)) {
        return None;
    }
    let start = at + 3;
    let ends = |b: u8| b.is_ascii_whitespace() || b"/\"'`<>?#\\[]{}$(),;|".contains(&b);
    let end = text.run(start, |byte| byte != NOTHING && !ends(byte));
    let Some((user, _)) = text.part(start, end.min(start + VALUE_MAX)).rsplit_once('@') else {
        return beside::password_with_slash(text, at, end);
    };
    let (name, password) = user.split_once(':')?;
    let from = start + name.len() + 1;
    (!password.is_empty()).then_some((from, from + password.len()))
}

/// Finds a block that holds a private key, whole or cut off.
fn private_key(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    if text.before(at) == b'-' || !text.has(at, "-----BEGIN ") {
        return None;
    }
    let title = at + "-----BEGIN ".len();
    let title_end = text.run(title, |byte| upper(byte) || byte == b' ');
    let name = text.part(title, title_end);
    if !name.contains("PRIVATE KEY") || name.len() > NAME_MAX || !text.has(title_end, "-----") {
        return None;
    }
    let start = title_end + 5;
    // Headers of old forms (`Proc-Type: 4,ENCRYPTED`), and line ends written `\n`, are let through.
    let inside =
        |byte: u8| alnum(byte) || byte.is_ascii_whitespace() || b"+/=\\:,._\"|>".contains(&byte);
    let mut end = text.run(start, inside);
    while text.byte(end) == b'-' && !text.has(end, "-----") {
        end = text.run(end + 1, inside);
    }
    let is_base64 = |byte: u8| alnum(byte) || matches!(byte, b'+' | b'/' | b'=');
    let lines = text.part(start, end).as_bytes().split(|byte| !is_base64(*byte));
    if lines.map(<[u8]>::len).max().unwrap_or_default() < KEY_LINE_MIN {
        return None;
    }
    if text.has(end, "-----END ") {
        let tail = text.run(end + "-----END ".len(), |byte| upper(byte) || byte == b' ');
        return Some((at, tail + if text.has(tail, "-----") { 5 } else { 0 }));
    }
    let kept =
        text.part(start, end).trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '=');
    Some((at, start + kept.len()))
}
