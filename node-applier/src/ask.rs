//! The commands for somebody on the node.

mod table;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use rulecast_node::backend::Verified;
use rulecast_node::control::client::{self, NoAnswer};
use rulecast_node::control::{self, Answer, OnDisk, Service, Status, Totals};
use rulecast_node::hold::{HoldError, Wish};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::args::{AskOptions, Output, Question};
use crate::{NO_PERMISSION, node_name};

/// What was asked for is not there.
const NOT_THERE: u8 = 3;

/// How a command ends that did not do what was asked.
struct Failure {
    code: u8,
    message: String,
}

/// Runs one of them.
pub(crate) fn run(question: Question, options: &AskOptions) -> ExitCode {
    let answer = match question {
        // Its exit code 1 says something else.
        Question::Verify => answer(question, options).map_err(|failure| Failure { code: 2, ..failure }),
        _ => answer(question, options),
    };
    match answer {
        Ok((text, code)) => {
            // A closed pipe is the reader's choice.
            let _closed = io::stdout().write_all(text.as_bytes());
            code
        }
        Err(Failure { code, message }) => {
            eprintln!("rulecast-node: {message}");
            if code == NO_PERMISSION {
                eprintln!("Run it as root, as the applier does; in its container: kubectl exec.");
            }
            ExitCode::from(code)
        }
    }
}

fn answer(question: Question, options: &AskOptions) -> Result<(String, ExitCode), Failure> {
    let request = match question {
        Question::Status => ("/status".to_owned(), None),
        Question::Show => match &options.service {
            Some(service) => (format!("/show?service={service}"), None),
            None => ("/show".to_owned(), None),
        },
        Question::Hold => ("/hold".to_owned(), Some(options.reason.as_str())),
        Question::UsePrevious => ("/use-previous".to_owned(), Some(options.reason.as_str())),
        Question::Resume => ("/resume".to_owned(), Some("")),
        Question::Verify => ("/verify".to_owned(), None),
    };
    let answer = match client::ask(&options.state_dir, &request.0, request.1) {
        Ok(answer) => answer,
        Err(NoAnswer::NotRunning(_)) if question != Question::Verify => {
            return from_disk(question, options).map(|text| (text, ExitCode::SUCCESS));
        }
        Err(error @ NoAnswer::NotRunning(_)) => return Err(failure(2, &error)),
        Err(error @ NoAnswer::Permission(_)) => return Err(failure(NO_PERMISSION, &error)),
        Err(error @ NoAnswer::Broken(_)) => return Err(failure(1, &error)),
    };
    let Answer { code, body } = answer;
    match code {
        200 if question == Question::Verify => verified(options, &body),
        200 => show(question, options, &body, true).map(|text| (text, ExitCode::SUCCESS)),
        404 | 409 => Err(failure(NOT_THERE, &words(&body))),
        _ => Err(failure(1, &words(&body))),
    }
}

fn verified(options: &AskOptions, body: &str) -> Result<(String, ExitCode), Failure> {
    let verified: Verified = parse(body)?;
    let code = if verified.is_same() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let text = match options.output {
        Output::Json => {
            let mut value: Value = parse(body)?;
            value["same"] = verified.is_same().into();
            format!("{value:#}\n")
        }
        Output::Table => table::verified(&verified),
    };
    Ok((text, code))
}

fn failure(code: u8, message: &impl ToString) -> Failure {
    Failure { code, message: message.to_string() }
}

fn words(body: &str) -> String {
    let value: Option<Value> = serde_json::from_str(body).ok();
    let words = value.as_ref().and_then(|value| value["error"].as_str());
    words.map_or_else(|| body.to_owned(), str::to_owned)
}

/// Where no applier runs.
fn from_disk(question: Question, options: &AskOptions) -> Result<String, Failure> {
    let node = node_name(options.node.clone()).map_err(|error| failure(1, &format!("{error:#}")))?;
    let mut disk = OnDisk::read(&node, &options.state_dir, options.pool.as_deref())
        .map_err(|error| bad_disk(&options.state_dir, &error))?;
    let body = match question {
        Question::Status => text(&disk.with(|look| control::status(look, None))),
        Question::Show => match &options.service {
            None => text(&disk.with(control::totals)),
            Some(name) => {
                let service = disk.with(|look| control::service(look, name));
                let missing = || failure(NOT_THERE, &format!("no Service {name} is in force on disk"));
                text(&service.ok_or_else(missing)?)
            }
        },
        Question::Hold | Question::UsePrevious | Question::Resume => {
            let already = match question {
                Question::Hold => disk.keep(Wish::Hold, &options.reason),
                Question::UsePrevious => disk.keep(Wish::UsePrevious, &options.reason),
                _ => disk.resume(),
            };
            let already = already.map_err(|error| bad_disk(&options.state_dir, &error))?;
            let hold = disk.with(|look| control::status(look, None).hold);
            text(&json!({ "already": already, "hold": hold, "notKept": null }))
        }
        Question::Verify => unreachable!("it is about what runs"),
    };
    show(question, options, &body, false)
}

fn bad_disk(dir: &Path, error: &anyhow::Error) -> Failure {
    let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let denied = error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(denied));
    let nothing = matches!(error.downcast_ref(), Some(HoldError::NothingBefore));
    let code = match (denied, nothing) {
        (true, _) => NO_PERMISSION,
        (_, true) => NOT_THERE,
        _ => 1,
    };
    failure(code, &format!("no applier runs on {}; on its disk: {error:#}", dir.display()))
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

fn show(question: Question, options: &AskOptions, body: &str, running: bool) -> Result<String, Failure> {
    if options.output == Output::Json {
        let mut value: Value = parse(body)?;
        value["running"] = running.into();
        return Ok(format!("{value:#}\n"));
    }
    let table = match question {
        Question::Status => table::status(&parse::<Status>(body)?),
        Question::Show if options.service.is_some() => table::service(&parse::<Service>(body)?),
        Question::Show => table::totals(&parse::<Totals>(body)?),
        _ => table::wish(&parse(body)?, running),
    };
    let from_disk = if running || matches!(question, Question::Status) {
        ""
    } else {
        "No applier runs here; this is about its disk.\n"
    };
    Ok(format!("{from_disk}{table}"))
}

fn parse<T: DeserializeOwned>(body: &str) -> Result<T, Failure> {
    serde_json::from_str(body).map_err(|error| failure(1, &format!("the answer cannot be read: {error}")))
}
