use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a line is rewritten on a terminal, and how often a new one is printed elsewhere.
const ON_TERMINAL: Duration = Duration::from_millis(500);
const IN_LOG: Duration = Duration::from_secs(30);

/// Runs a long command with its output in a log, saying how it goes. On failure the end of the log and the command are shown.
pub fn run(title: &str, command: &mut Command, logs: &Path) -> Result<()> {
    let name: String = title.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let log = logs.join(format!("{name}.log"));
    let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let started = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    say(terminal, &format!("… {title}"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone().context("share the log")?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("start {}", spelled(command)))?;
    let mut said = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().context("wait for the command")? {
            break status;
        }
        if said.elapsed() >= if terminal { ON_TERMINAL } else { IN_LOG } {
            said = Instant::now();
            let now = last_lines(&log, 1).pop().unwrap_or_default();
            say(
                terminal,
                &format!("… {title} ({} s) {}", started.elapsed().as_secs(), now.chars().take(70).collect::<String>()),
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    if !status.success() {
        eprintln!();
        for line in last_lines(&log, 25) {
            eprintln!("    {line}");
        }
        bail!("{title} failed ({status}); to try it by hand: {}\nthe whole log: {}", spelled(command), log.display());
    }
    say(terminal, &format!("✓ {title} ({} s)", started.elapsed().as_secs()));
    if terminal {
        eprintln!();
    }
    Ok(())
}

/// Runs a command that speaks for itself.
pub fn show(title: &str, command: &mut Command) -> Result<()> {
    eprintln!("\n── {title}");
    let started = Instant::now();
    let status = command.status().with_context(|| format!("start {}", spelled(command)))?;
    if !status.success() {
        bail!("{title} failed ({status}); to try it by hand: {}", spelled(command));
    }
    eprintln!("✓ {title} ({} s)", started.elapsed().as_secs());
    Ok(())
}

pub fn spelled(command: &Command) -> String {
    let parts = std::iter::once(command.get_program()).chain(command.get_args());
    parts.map(|part| part.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn say(terminal: bool, line: &str) {
    if terminal {
        eprint!("\r\x1b[2K{line}");
        let _ = std::io::stderr().flush();
    } else {
        eprintln!("{line}");
    }
}

fn last_lines(log: &Path, count: usize) -> Vec<String> {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.split(['\n', '\r']).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
}
