//! What a question is about, by keywords.

use crate::episode::Episode;
use crate::suite::strata::words;

/// Domain of questions that no keyword tells anything about.
pub(super) const OTHER: &str = "other";

/// The domains with their words. Where two have as many, the first counts: those that stand further
/// down have words that go with everything.
const DOMAINS: [(&str, &[&str]); 10] = [
    (
        "weather",
        &[
            "weather",
            "forecast",
            "forecasts",
            "temperature",
            "temperatures",
            "humidity",
            "rain",
            "snow",
            "storm",
            "wind",
            "climate",
            "sunny",
            "celsius",
            "fahrenheit",
            "uv",
        ],
    ),
    (
        "calendar",
        &[
            "calendar",
            "calendars",
            "meeting",
            "meetings",
            "appointment",
            "appointments",
            "schedule",
            "scheduled",
            "scheduling",
            "reminder",
            "reminders",
            "agenda",
            "event",
            "events",
            "attendees",
            "reschedule",
            "invite",
        ],
    ),
    (
        "maps",
        &[
            "map",
            "maps",
            "route",
            "routes",
            "directions",
            "navigation",
            "navigate",
            "distance",
            "latitude",
            "longitude",
            "gps",
            "geocode",
            "coordinates",
            "nearby",
            "traffic",
            "driving",
            "restaurant",
            "restaurants",
        ],
    ),
    (
        "ecommerce",
        &[
            "product",
            "products",
            "order",
            "orders",
            "cart",
            "checkout",
            "shop",
            "shopping",
            "store",
            "purchase",
            "buy",
            "shipping",
            "delivery",
            "refund",
            "catalog",
            "inventory",
            "sku",
            "customer",
            "customers",
            "discount",
            "coupon",
        ],
    ),
    (
        "finance",
        &[
            "stock",
            "stocks",
            "finance",
            "financial",
            "investment",
            "investments",
            "portfolio",
            "loan",
            "loans",
            "mortgage",
            "interest",
            "bank",
            "banking",
            "account",
            "accounts",
            "currency",
            "exchange",
            "tax",
            "taxes",
            "payment",
            "payments",
            "price",
            "prices",
            "budget",
            "revenue",
            "dividend",
            "transaction",
            "transactions",
            "invoice",
            "trading",
        ],
    ),
    (
        "communication",
        &[
            "email",
            "emails",
            "mail",
            "inbox",
            "message",
            "messages",
            "sms",
            "chat",
            "call",
            "phone",
            "contact",
            "contacts",
            "recipient",
            "recipients",
            "notify",
            "notification",
            "notifications",
            "send",
            "reply",
        ],
    ),
    (
        "social",
        &[
            "social",
            "tweet",
            "tweets",
            "twitter",
            "facebook",
            "instagram",
            "linkedin",
            "tiktok",
            "reddit",
            "post",
            "posts",
            "hashtag",
            "hashtags",
            "follower",
            "followers",
            "likes",
            "friend",
            "friends",
            "feed",
            "influencer",
        ],
    ),
    (
        "files",
        &[
            "file",
            "files",
            "folder",
            "folders",
            "directory",
            "directories",
            "upload",
            "download",
            "document",
            "documents",
            "pdf",
            "csv",
            "path",
            "filename",
            "backup",
            "archive",
            "disk",
        ],
    ),
    (
        "database",
        &[
            "database",
            "databases",
            "sql",
            "query",
            "queries",
            "table",
            "tables",
            "record",
            "records",
            "row",
            "rows",
            "column",
            "columns",
            "schema",
            "index",
            "mongodb",
            "postgres",
            "mysql",
        ],
    ),
    (
        "search",
        &[
            "search",
            "searches",
            "find",
            "lookup",
            "google",
            "bing",
            "results",
            "web",
            "website",
            "browse",
            "wikipedia",
            "news",
            "article",
            "articles",
            "keyword",
            "keywords",
        ],
    ),
];

/// Returns the names of the domains, in the order in which ties are broken, `other` last.
pub(super) fn names() -> Vec<&'static str> {
    DOMAINS.iter().map(|(name, _)| *name).chain([OTHER]).collect()
}

/// Returns the domain of which the question and its tools have the most words, each counted once.
///
/// A part of a word is not the word: `order` is not in `border`. Names such as `getWeather` and
/// `get_weather` are taken apart.
pub(super) fn of(episode: &Episode) -> &'static str {
    let mut said = words(&episode.query);
    for tool in &episode.tools {
        said.extend(words(&tool.name));
        said.extend(words(&tool.description));
    }
    for call in episode.gold.calls() {
        said.extend(words(&call.name));
    }
    let mut best = (0, OTHER);
    for (name, keywords) in DOMAINS {
        let known = keywords.iter().filter(|keyword| said.contains(**keyword)).count();
        if known > best.0 {
            best = (known, name);
        }
    }
    best.1
}
