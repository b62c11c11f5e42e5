//! Arguments that each command takes and refuses.

use super::*;

fn check(command: &Command, line: &str) -> Result<Given, Refusal> {
    command.check(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
}

#[test]
fn one_leading_double_dash_is_ours_and_both_forms_are_one() {
    for line in ["--only track --seconds 5", "-- --only track --seconds 5", "-- --only=track --seconds=5"] {
        let given = check(&BENCH, line).unwrap();
        assert_eq!((given.value("--only"), given.value("--seconds")), (Some("track"), Some("5")), "{line}");
        assert!(!given.arguments.contains(&"--".to_owned()), "{line}");
    }
    check(&BENCH, "-- -- --only track").unwrap_err();
    check(&DEMO, "--seconds 5 -- --layout grid").unwrap_err();
    assert_eq!(check(&DEMO, "").unwrap().arguments, Vec::<String>::new());
    assert!(check(&IMAGES, "-- --dev").unwrap().has("--dev"));
}

#[test]
fn what_is_meant_for_test_programs_reaches_them() {
    let given = check(&VERIFY, "-- --test e2e -- --exact uploads::x --nocapture").unwrap();
    assert_eq!(given.arguments.join(" "), "--test e2e -- --exact uploads::x --nocapture");
    assert_eq!(given.values("--test").collect::<Vec<_>>(), ["e2e"]);
    let given = check(&VERIFY, "--test rules --test storage --no-fail-fast gcs").unwrap();
    assert_eq!(given.values("--test").collect::<Vec<_>>(), ["rules", "storage"]);
    assert_eq!(given.arguments.len(), 6);
    assert_eq!(check(&VERIFY, "--test e2e -- -- x").unwrap().arguments.join(" "), "--test e2e -- -- x");
}

#[test]
fn unknown_flags_names_and_values_are_refused_with_what_is_known() {
    for (command, line, listed) in [
        (&BENCH, "--onyl track", "--only"),
        (&BENCH, "--only trakc", "`track h264`"),
        (&BENCH, "--store s3", "`S3`"),
        (&BENCH, "--seconds five", "not a number"),
        (&BENCH, "--seconds -5", "lacks its value"),
        (&BENCH, "--seconds NaN", "not a number"),
        (&BENCH, "--runs 1.5", "not a whole number"),
        (&BENCH, "--runs", "lacks its value"),
        (&BENCH, "--only", "lacks its value"),
        (&BENCH, "--only track --only room", "twice"),
        (&BENCH, "track", "--only"),
        (&DEMO, "--layout gird", "`single-speaker-light`"),
        (&DEMO, "--only track", "--layout"),
        (&IMAGES, "--dev=yes", "takes no value"),
        (&INSTALL, "--dev", "not known"),
        (&VERIFY, "--release", "--no-fail-fast"),
        (&VERIFY, "-p spillway-media", "--test"),
        (&VERIFY, "gcs azure", "second name"),
    ] {
        let refusal = check(command, line).expect_err(line).to_string();
        assert!(refusal.contains(listed), "{line}: {refusal}");
        assert!(refusal.contains(&format!("cargo {}", command.name)), "{line}: {refusal}");
    }
}

#[test]
fn help_is_no_mistake_and_names_every_flag() {
    for command in [&DEMO, &BENCH, &IMAGES, &INSTALL, &VERIFY] {
        assert!(check(command, "--help").unwrap().help);
        let usage = command.usage();
        assert!(command.flags.iter().all(|flag| usage.contains(flag.name)), "{usage}");
    }
    // What follows is for the test programs.
    assert!(!check(&VERIFY, "-- --test e2e -- --help").unwrap().help);
}

#[test]
fn measurements_on_stores_are_measurements() {
    assert!(bench::ON_STORES.iter().all(|name| bench::NAMES.contains(name)));
    assert!(bench::IN_A_BROWSER.iter().all(|name| bench::NAMES.contains(name)));
    assert!(bench::STREAMING.iter().all(|name| bench::NAMES.contains(name)));
    // What kills files kills HLS too, and HLS has names of its own.
    for (only, selected) in
        [("kills", [bench::KILLS, bench::SEGMENT_KILLS]), ("segments", [bench::SEGMENT_KILLS, bench::LIVE_SEGMENTS])]
    {
        let names = bench::NAMES.iter().filter(|name| bench::is_selected(name, only));
        assert_eq!(names.copied().collect::<Vec<_>>(), selected, "{only}");
    }
    assert!(bench::is_selected("track h264", "") && bench::is_selected("track h264", "track"));
    assert!(!bench::is_selected("track h264", "room"));
}
