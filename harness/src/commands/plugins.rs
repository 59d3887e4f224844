//! `assay kernels check --plugin` and `--peer`: kernels from outside, checked in a child process.

#[cfg(unix)]
pub(super) use unix::{child, run};

#[cfg(not(unix))]
pub(super) fn run(_: &crate::args::CheckKernels) -> anyhow::Result<crate::exit::Exit> {
    anyhow::bail!("kernels from outside are checked on Unix systems only: guard pages are needed")
}

#[cfg(not(unix))]
pub(super) fn child(_: &str) -> anyhow::Result<crate::exit::Exit> {
    anyhow::bail!("kernels from outside are checked on Unix systems only")
}

#[cfg(unix)]
mod unix {
    use crate::args;
    use crate::output;
    use anyhow::Context as _;
    use assay_harness::exit::Exit;
    use assay_harness::files;
    use assay_harness::plugins::peers::{self, Found};
    use assay_harness::plugins::{self, KernelReport, Options, Report, Source};
    use assay_harness::receipts::{canonical, record};
    use serde::Serialize;
    use std::path::PathBuf;
    use std::time::Duration;

    #[derive(Serialize)]
    struct Checked<'a> {
        held: bool,
        #[serde(flatten)]
        report: &'a Report,
        receipt: Option<PathBuf>,
    }

    pub(in crate::commands) fn run(args: &args::CheckKernels) -> anyhow::Result<Exit> {
        let source = match (&args.plugin, &args.peer) {
            (Some(plugin), _) => Source::Plugin(plugin.clone()),
            (None, Some(peer)) => match peers::find(peer, &peers::folder())? {
                Found::Here(source) => source,
                Found::Absent(why) => {
                    output::note(&format!("skipped: {why}"));
                    return Ok(Exit::Inconclusive);
                }
            },
            (None, None) => anyhow::bail!("name a --plugin or a --peer"),
        };
        args.out.as_deref().map(files::output_folder).transpose()?;
        let options = Options {
            program: std::env::current_exe().context("this program's own file")?,
            arguments: ["kernels", "child"].map(str::to_owned).to_vec(),
            source,
            kernel: args.kernel.clone(),
            seed: args.seed()?,
            timeout: Duration::from_secs(args.timeout.into()),
        };
        let report = plugins::check(&options, &mut |_| ())?;
        let receipt = match &args.out {
            // A library that died while it was loaded has shown no kernels to write about.
            Some(out) if !report.kernels.is_empty() => {
                Some(canonical::write(out, &record::plugin_check(&report)?)?)
            }
            _ => None,
        };
        let held = report.held();
        if args.json {
            output::json(&Checked { held, report: &report, receipt })?;
        } else {
            output::line(&plain(&report, receipt))?;
        }
        Ok(Exit::of(held))
    }

    pub(in crate::commands) fn child(request: &str) -> anyhow::Result<Exit> {
        let request = serde_json::from_str(request).context("the request of the parent process")?;
        plugins::run_child(&request)?;
        Ok(Exit::Held)
    }

    fn plain(report: &Report, receipt: Option<PathBuf>) -> String {
        let row = |kernel: &KernelReport| {
            let facts = &kernel.kernel;
            vec![
                facts.name.clone(),
                format!("{} x {}", facts.weights, facts.activations),
                facts.result.clone(),
                kernel.cases().to_string(),
                verdict(kernel),
            ]
        };
        let mut text =
            format!("{} {}  {}  SHA-256 {}\n\n", report.name, report.version, report.file, report.sha256);
        if let Some(finding) = &report.finding {
            text += &format!("finding  {}: {} ({})\n", finding.kind, finding.message, finding.case);
        }
        if !report.kernels.is_empty() {
            let rows: Vec<_> = report.kernels.iter().map(row).collect();
            text += &output::table(&["kernel", "formats", "result", "cases", "verdict"], &rows, &[3]);
            text.push('\n');
        }
        for kernel in &report.kernels {
            for (group, finding) in kernel.findings() {
                text += &format!(
                    "\n{}  {}: {}\n  {}",
                    kernel.kernel.name,
                    group.name(),
                    finding.kind,
                    finding.message
                );
                if !finding.case.is_empty() {
                    text += &format!("\n  {}", finding.case);
                }
            }
            if !kernel.not_run.is_empty() {
                let names: Vec<_> = kernel.not_run.iter().map(|group| group.name()).collect();
                text += &format!("\n{}  not run after this: {}", kernel.kernel.name, names.join(", "));
            }
        }
        if let Some(path) = receipt {
            text += &format!("\nreceipt  {}", path.display());
        }
        text.trim_end().to_owned()
    }

    fn verdict(kernel: &KernelReport) -> String {
        let findings: Vec<_> = kernel.findings().collect();
        if !kernel.held {
            let first = findings.first().map_or("", |(_, finding)| finding.kind.as_str());
            return format!("{} findings, first: {first}", findings.len());
        }
        let worst = kernel.groups.iter().filter_map(|result| result.worst).fold(0.0_f64, f64::max);
        match kernel.kernel.is_close() {
            true => format!("held; largest error {worst:.1e} of the terms"),
            false => "held, bit for bit".to_owned(),
        }
    }
}
