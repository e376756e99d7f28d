//! The tables of reasons and limits, from the lists in `proto/` and the comments of the schema.

use anyhow::Result;
use gosync_proto::Reason;
use gosync_proto::limits::Limits;

use crate::schema;

/// Each reason with its status, details and what it asks of a replica.
pub fn errors() -> Result<String> {
    let mut out = String::from(
        "| Reason | gRPC status | Details besides ErrorInfo | Retryable | Action | Meaning |\n\
         |---|---|---|---|---|---|\n",
    );
    for &reason in Reason::ALL {
        let details = match reason.details() {
            [] => "-".to_owned(),
            details => details.join(", "),
        };
        out += &format!(
            "| {reason} | {} ({}) | {details} | {} | {:?} | {} |\n",
            spaced(&format!("{:?}", reason.status())),
            reason.status() as i32,
            if reason.retryable() { "yes" } else { "no" },
            reason.action(),
            schema::comment("Reason", &format!("REASON_{reason}"))?,
        );
    }
    Ok(out.trim_end().to_owned())
}

/// Each advertised limit with its default, floor and ceiling.
pub fn limits() -> Result<String> {
    let mut out = String::from(
        "| Field of Limits | Default | Floor | Ceiling | Enforced by | Meaning |\n\
         |---|---|---|---|---|---|\n",
    );
    let bounds = Limits::FLOOR
        .entries()
        .into_iter()
        .zip(Limits::CEILING.entries());
    for ((name, default), ((_, floor), (_, ceiling))) in
        Limits::default().entries().into_iter().zip(bounds)
    {
        let ceiling = match ceiling {
            u64::MAX => "-".to_owned(),
            ceiling => number(ceiling),
        };
        let who = match name {
            "watchdog_ms" => "replica",
            "max_value_bytes" | "max_clock_skew_ms" => "both",
            _ => "server",
        };
        out += &format!(
            "| `{name}` | {} | {} | {ceiling} | {who} | {} |\n",
            number(default),
            number(floor),
            schema::comment("Limits", name)?,
        );
    }
    Ok(out.trim_end().to_owned())
}

/// `FailedPrecondition` as `FAILED_PRECONDITION`.
fn spaced(name: &str) -> String {
    let mut out = String::new();
    for (at, c) in name.char_indices() {
        if c.is_ascii_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

/// Digits in groups of three.
fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, c) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_written_as_the_chapters_write_them() {
        assert_eq!(spaced("FailedPrecondition"), "FAILED_PRECONDITION");
        assert_eq!(
            [0, 999, 1000, 4_194_304].map(number),
            ["0", "999", "1 000", "4 194 304"]
        );
    }

    #[test]
    fn every_reason_and_limit_has_a_row() {
        assert_eq!(errors().unwrap().lines().count(), 2 + Reason::ALL.len());
        assert_eq!(
            limits().unwrap().lines().count(),
            2 + Limits::FLOOR.entries().len()
        );
    }
}
