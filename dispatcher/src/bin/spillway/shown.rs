//! Values as texts for a terminal. Pure.

/// A text of others without what a terminal would follow: control characters, and marks that turn the direction of writing.
/// Rooms may have any name.
pub fn safe(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c }).collect()
}

/// `room_composite` → `room composite`
pub fn plain(word: &str) -> String {
    word.replace('_', " ")
}

/// `1:02:03`
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
}

/// `12.3 MB`, in powers of ten as the stores count.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// `0.0123`; the currency is in the head of the column.
pub fn money(amount: f64) -> String {
    if amount.abs() < 1.0 { format!("{amount:.4}") } else { format!("{amount:.2}") }
}

/// Unix milliseconds as a time in UTC; empty before there is one.
pub fn time(unix_ms: i64) -> String {
    let at = chrono::DateTime::from_timestamp_millis(unix_ms).filter(|_| unix_ms > 0);
    at.map(|at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_cannot_write_on_the_terminal() {
        assert_eq!(safe("a\u{1b}[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(safe("Küche 🎬 <script>"), "Küche 🎬 <script>");
    }

    #[test]
    fn numbers_are_as_people_read_them() {
        assert_eq!([duration(0.9), duration(3723.0), duration(-1.0)], ["0:00:00", "1:02:03", "0:00:00"]);
        assert_eq!([bytes(999), bytes(12_345_678), bytes(5_000_000_000_000)], ["999 B", "12.3 MB", "5.0 TB"]);
        assert_eq!([money(0.01234), money(12.0)], ["0.0123", "12.00"]);
        assert_eq!([time(0), time(1_793_491_200_000)], ["", "2026-11-01 00:00:00 UTC"]);
        assert_eq!(plain("room_composite"), "room composite");
    }
}
