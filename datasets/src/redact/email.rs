//! Addresses of electronic mail.

use super::scan::Text;

/// Longest part before the `@` (RFC 5321).
const LOCAL_MAX: usize = 64;
/// Longest domain (RFC 5321).
const DOMAIN_MAX: usize = 255;
/// Endings that name a picture in several sizes (`logo@2x.png`), and no domain.
const PICTURES: [&str; 6] = ["png", "jpg", "jpeg", "gif", "svg", "webp"];

/// Finds an address that begins at a place.
pub(super) fn find(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    let first = text.part(at, text.text.len()).chars().next()?;
    if !is_local(first) || matches!(first, '.' | '-') {
        return None;
    }
    // Only the first letter begins it; marks before it do not belong to it.
    let before = text.lead(at, 4).chars().next_back();
    if before.is_some_and(|c| is_local(c) && !matches!(c, '.' | '-')) {
        return None;
    }
    let rest = text.part(at, text.text.len()).char_indices();
    let local = rest.take_while(|(_, c)| is_local(*c)).take(LOCAL_MAX + 1);
    let (letters, last) = local.fold((0, 0), |(n, _), (place, c)| (n + 1, place + c.len_utf8()));
    let sign = at + last;
    if letters > LOCAL_MAX || text.byte(sign) != b'@' {
        return None;
    }
    let start = sign + 1;
    let domain_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let run = text.part(start, text.run(start, domain_byte));
    let domain = run.trim_end_matches(['.', '-']);
    let end = start + domain.len();
    // `git@host.org:path` is a place in a repository.
    let is_repository = text.part(at, sign) == "git" && text.byte(end) == b':';
    (is_domain(domain) && !is_repository).then_some((at, end))
}

fn is_local(c: char) -> bool {
    let is_latin = ('\u{c0}'..='\u{24f}').contains(&c) && c.is_alphabetic();
    c.is_ascii_alphanumeric() || is_latin || matches!(c, '.' | '_' | '%' | '+' | '-')
}

fn is_domain(domain: &str) -> bool {
    let Some((_, last)) = domain.rsplit_once('.') else { return false };
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    domain.len() <= DOMAIN_MAX
        && domain.split('.').all(is_label)
        && (2..=24).contains(&last.len())
        && last.bytes().all(|byte| byte.is_ascii_alphabetic())
        && !PICTURES.contains(&last.to_ascii_lowercase().as_str())
}
