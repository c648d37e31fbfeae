//! Forms of a report other than JSON, whichever command made or read it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::output::Output;
use crate::report::{Report, hgrm, hlog, html};

#[derive(Debug, Default, Args)]
pub(super) struct Formats {
    /// Also write a page for the browser to this file: charts, tables, the machine; works offline
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Also write the percentiles to this file, as HdrHistogram's plotter reads them; end to end and others beside it
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Also write an HdrHistogram interval log to this file
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
}

impl Formats {
    pub(super) fn is_empty(&self) -> bool {
        self.html.is_none() && self.hgrm.is_none() && self.hlog.is_none()
    }

    /// To be called before a run: a wrong path must not cost the result.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let paths = [&self.html, &self.hgrm, &self.hlog];
        paths.into_iter().flatten().try_for_each(|path| Output::create(Some(path)).map(drop))
    }

    pub(super) fn write(&self, report: &Report) -> anyhow::Result<()> {
        Output::create(self.html.as_deref())?.write(|| html::page(report))?;
        Output::create(self.hlog.as_deref())?.write(|| hlog::of_report(report))?;
        if let Some(path) = &self.hgrm {
            for (suffix, text) in hgrm::of_report(report) {
                Output::create(Some(&with_suffix(path, suffix)))?.write(|| text)?;
            }
        }
        Ok(())
    }
}

/// `out.hgrm` with the suffix `e2e` is `out-e2e.hgrm`; without one it stays.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    if suffix.is_empty() {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default();
    let mut name: OsString = [stem, "-".as_ref(), suffix.as_ref()].into_iter().collect();
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// What `run --json` wrote.
pub(super) fn read_report(path: &Path) -> anyhow::Result<Report> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report of a run", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_distributions_stand_beside_the_named_file() {
        let with = |path: &str, suffix| with_suffix(Path::new(path), suffix).display().to_string();
        assert_eq!(with("a/out.hgrm", ""), "a/out.hgrm");
        assert_eq!(with("a/out.hgrm", "e2e"), "a/out-e2e.hgrm");
        assert_eq!(with("out", "e2e"), "out-e2e");
    }
}
