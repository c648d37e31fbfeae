//! Where results go, and how a run is ended early.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use serde::Serialize;

use crate::stop::StopFlag;

/// A file that a result is written to once it is there; opened before, for a wrong path must not cost the result.
#[derive(Debug)]
pub(super) struct Output(Option<File>);

impl Output {
    /// Without a path nothing is written.
    pub(super) fn create(path: Option<&Path>) -> anyhow::Result<Output> {
        let Some(path) = path else { return Ok(Output(None)) };
        Ok(Output(Some(File::create(path).with_context(|| format!("cannot write {}", path.display()))?)))
    }

    pub(super) fn write_json(self, result: &impl Serialize) -> anyhow::Result<()> {
        match self.0 {
            Some(file) => serde_json::to_writer_pretty(file, result).context("cannot write the report"),
            None => Ok(()),
        }
    }

    /// `text` is only made if there is somewhere to write it.
    pub(super) fn write(self, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        match self.0 {
            Some(mut file) => file.write_all(text().as_bytes()).context("cannot write the report"),
            None => Ok(()),
        }
    }
}

/// The first Ctrl-C ends the run with a report, the second ends the process.
pub(super) fn stop_on_ctrl_c() -> anyhow::Result<StopFlag> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(StopFlag::new(flag))
}
