//! A Markdown document whose shell blocks can be run, and whose other blocks say what they print.

use anyhow::{Context as _, bail, ensure};

/// A block that is run, with what it is said to print.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Where it begins, for messages.
    pub(crate) line: usize,
    pub(crate) script: String,
    /// The blocks after it, up to the next one that is run.
    pub(crate) expected: Vec<String>,
}

/// The `sh` blocks of a document in order. Blocks of `text`, `markdown`, `diff` and `yaml` belong to the one before.
pub(crate) fn steps(document: &str) -> anyhow::Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = document.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let language = line.trim_start_matches('`');
        let fence = &line[..line.len() - language.len()];
        if fence.len() < 3 {
            continue;
        }
        let mut block = String::new();
        loop {
            let (_, line) =
                lines.next().with_context(|| format!("line {}: no end of the block", number + 1))?;
            if line == fence {
                break;
            }
            block.push_str(line);
            block.push('\n');
        }
        match language {
            "sh" => steps.push(Step { line: number + 1, script: block, expected: Vec::new() }),
            "text" | "markdown" | "diff" | "yaml" => {
                let step = steps.last_mut();
                let step = step.with_context(|| format!("line {}: nothing was run before", number + 1))?;
                step.expected.push(block);
            }
            other => bail!("line {}: a block of {other:?}, of which nothing is known", number + 1),
        }
    }
    Ok(steps)
}

/// Whether the lines of `expected` are all in `output`, in that order. In a line `…` stands for any text; a line that is
/// `…` says only that others may be left out, which is so anyway.
pub(crate) fn check(expected: &str, output: &str) -> anyhow::Result<()> {
    let mut lines = output.lines();
    for wanted in expected.lines().filter(|line| !matches!(line.trim(), "" | "…")) {
        ensure!(
            lines.any(|line| fits(wanted.trim_end(), line.trim_end())),
            "this line is missing:\n{wanted}"
        );
    }
    Ok(())
}

fn fits(wanted: &str, line: &str) -> bool {
    let mut parts = wanted.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut open = false;
    for part in parts {
        open = part.is_empty();
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    open || rest.is_empty()
}

/// What is wrong with these rules shows before anything is started.
pub(crate) fn self_check() -> anyhow::Result<()> {
    let parsed = steps("a\n```sh\none\n```\n````markdown\n```\nx\n```\n````\n```sh\ntwo\n```\n")?;
    let step = |line, script: &str, expected: &[&str]| Step {
        line,
        script: script.to_owned(),
        expected: expected.iter().map(|&text| text.to_owned()).collect(),
    };
    ensure!(parsed == [step(2, "one\n", &["```\nx\n```\n"]), step(10, "two\n", &[])], "{parsed:?}");
    for (wanted, line, good) in [
        ("a … c", "a b c", true),
        ("a … c", "a b c d", false),
        ("a …", "a b c d", true),
        ("…c", "a b c", true),
        ("a", "ab", false),
        ("a…b…c", "a c b", false),
    ] {
        ensure!(fits(wanted, line) == good, "{wanted:?} {line:?}");
    }
    ensure!(check("b\na\n", "a\nb\n").is_err() && check("a\n…\nc\n", "a\nb\nc\n").is_ok(), "order");
    Ok(())
}
