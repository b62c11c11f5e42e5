//! Files of this machine: below the root, each of one egress only, and never two writers in one.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::alone::{RunResult, RunnerProcess, start_in};
use crate::until;

fn folder() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

fn run(folder: &Arc<tempfile::TempDir>, id: &str, script: &str, filepath: &str, arguments: &[&str]) -> RunnerProcess {
    start_in(folder.clone(), id, script, json!({ "filepath": filepath }), arguments)
}

/// Byte by byte what the scripted media process writes: two writers in one file would have torn it, or made it longer.
fn is_whole(told: &RunResult) -> bool {
    let result = &told.info["fileResults"][0];
    let content = std::fs::read(result["location"].as_str().unwrap()).unwrap();
    let size: u64 = result["size"].as_str().unwrap().parse().unwrap();
    let media = |at: usize| ((at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
    size == content.len() as u64 && size > 100 && content.iter().enumerate().all(|(at, byte)| *byte == media(at))
}

fn name(told: &RunResult) -> &str {
    told.info["fileResults"][0]["filename"].as_str().unwrap_or_default()
}

#[test]
fn egresses_of_one_path_at_once_have_a_whole_file_each() {
    for arguments in [&["--local-root", "out", "--max-duration", "2"][..], &["--max-duration", "2"]] {
        let folder = folder();
        let runs: Vec<_> = (1..=3).map(|n| run(&folder, &format!("EG_{n}"), "record", "d/x.ogg", arguments)).collect();
        let told: Vec<_> = runs.into_iter().map(|run| run.finished().0).collect();
        let mut names: Vec<_> = told.iter().map(name).collect();
        names.sort_unstable();
        assert_eq!(names, ["d/x-2.ogg", "d/x-3.ogg", "d/x.ogg"]);
        for told in &told {
            assert_eq!(told.info["status"], "EGRESS_LIMIT_REACHED", "{}", told.log);
            assert!(is_whole(told), "{}: {}", name(told), told.log);
            let location = told.info["fileResults"][0]["location"].as_str().unwrap();
            let manifest = told.info["manifestLocation"].as_str().unwrap();
            let manifest: Value = serde_json::from_str(&std::fs::read_to_string(manifest).unwrap()).unwrap();
            assert_eq!(manifest["files"], json!([{ "filename": name(told), "location": location }]));
        }
    }
}

#[test]
fn an_older_recording_and_what_a_link_names_stay_as_they_are() {
    let folder = folder();
    let (out, outside) = (folder.path().join("out"), folder.path().join("outside"));
    for made in [&out, &outside] {
        std::fs::create_dir_all(made).unwrap();
    }
    let victim = outside.join("victim.ogg");
    let older = "older and longer than what is recorded now ".repeat(1000);
    for file in [&victim, &out.join("a.ogg")] {
        std::fs::write(file, &older).unwrap();
    }
    symlink("../outside", out.join("link")).unwrap();
    symlink("../outside/victim.ogg", out.join("b.ogg")).unwrap();
    let absolute = outside.join("c.ogg").display().to_string();
    let below = format!("{}{absolute}", out.display());
    for (asked, told_name, location) in [
        ("a.ogg", "a-2.ogg", out.join("a-2.ogg").display().to_string()),
        ("b.ogg", "b-2.ogg", out.join("b-2.ogg").display().to_string()),
        (&absolute, &absolute, below),
    ] {
        let (told, _) = run(&folder, "EG_1", "record-closed", asked, &["--local-root", "out"]).finished();
        assert_eq!(told.info["status"], "EGRESS_COMPLETE", "{}", told.log);
        assert_eq!((name(&told), &told.info["fileResults"][0]["location"]), (told_name, &json!(location)));
        assert!(is_whole(&told), "{asked}");
    }
    let (told, _) = run(&folder, "EG_1", "record-closed", "link/d.ogg", &["--local-root", "out"]).finished();
    assert_eq!((&told.info["status"], &told.info["errorCode"]), (&json!("EGRESS_FAILED"), &json!(400)));
    let error = told.info["error"].as_str().unwrap();
    assert!(error.starts_with("cannot create the folder") && error.contains("leads out of"), "{error}");
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), older);
    assert_eq!(std::fs::read_to_string(out.join("a.ogg")).unwrap(), older);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "nothing new outside");
}

/// Opening a pipe waits for a reader, without a bound: the session would hear no stop.
#[test]
fn a_pipe_ends_the_recording_at_once_with_its_reason() {
    for arguments in [&["--local-root", "out"][..], &[]] {
        let folder = folder();
        let made = folder.path().join(if arguments.is_empty() { "" } else { "out" });
        std::fs::create_dir_all(&made).unwrap();
        let pipe = made.join("a.ogg");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut run = run(&folder, "EG_1", "record", "a.ogg", arguments);
        until("it ends by itself", || run.child.try_wait().unwrap());
        let (told, _) = run.finished();
        assert_eq!((&told.info["status"], &told.info["errorCode"]), (&json!("EGRESS_FAILED"), &json!(400)));
        let error = told.info["error"].as_str().unwrap();
        assert!(error.ends_with("a.ogg: there is no recording to a place that is a pipe"), "{error}");
    }
}

#[test]
fn a_second_attempt_of_an_egress_keeps_the_first_ones_file() {
    let folder = folder();
    let arguments = ["--local-root", "out"];
    let first = run(&folder, "EG_1", "record", "a.ogg", &arguments);
    let file = first.out().join("a.ogg");
    first.recorded(&file);
    first.signal(first.child.id(), Signal::KILL);
    let mut child = first.child;
    child.wait().unwrap();
    until("its media process is gone", || {
        let (before, after) = (length(&file), {
            std::thread::sleep(std::time::Duration::from_millis(200));
            length(&file)
        });
        (before == after).then_some(())
    });
    let kept = std::fs::read(&file).unwrap();
    for expected in ["a-2.ogg", "a-3.ogg"] {
        let (told, _) = run(&folder, "EG_1", "record-closed", "a.ogg", &arguments).finished();
        assert_eq!((name(&told), is_whole(&told)), (expected, true), "{}", told.log);
        // The manifest of the same egress is replaced, not numbered.
        let manifest = told.info["manifestLocation"].as_str().unwrap();
        assert_eq!(Path::new(manifest), file.with_file_name("EG_1.json"));
        assert!(std::fs::read_to_string(manifest).unwrap().contains(expected));
    }
    assert_eq!(std::fs::read(&file).unwrap(), kept);
}

fn length(file: &Path) -> u64 {
    std::fs::metadata(file).unwrap().len()
}
