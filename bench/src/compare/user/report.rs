//! What is shown of a comparison: the table, and files with it and a plot.

use super::profile::Profile;
use super::{Options, falls};
use crate::compare::lab::Lab;
use crate::compare::rounds::{self, Record, Row};
use crate::compare::saved::Saved;
use crate::failure::Result;
use serde_json::json;

/// Writes `user.json` and `user.svg`, and prints the table, or with `--json` the document.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn report(
    lab: &Lab,
    options: &Options,
    names: &[&str],
    rows: &[Row],
    records: &[Record],
    profiles: &[Profile],
    missing: &[String],
) -> Result<()> {
    let document = json!({
        "what": "compare user", "rounds": options.rounds, "slice-seconds": options.slice.as_secs_f64(),
        "dut-cpu": lab.dut_cpu, "load-cpu": lab.load_cpu, "missing": missing, "rows": rounds::rows_summary(rows),
        "profiles": profiles.iter().map(Profile::summary).collect::<Vec<_>>(), "slices": rounds::slices_summary(records),
    });
    let saved = Saved::write(lab, "user", &document, &rounds::groups(rows))?;
    if options.json {
        println!("{}", saved.text);
        return Ok(());
    }
    if !rows.is_empty() {
        print!("{}", rounds::table(names, rows));
        let disturbed = records.iter().filter(|record| !record.slice.clean()).count();
        let far = records.iter().filter(|record| record.slice.far()).count();
        println!(
            "\nMedians of {} rounds; /qemu and so on: how many times better netdevd is, the median of the rounds' own ratios\n\
             (least-largest). out: from the guest to the host's loopback, in: back. Connections: opened, a byte, closed by the\n\
             server first, one after the other. CPU {} has the stack with all its processes, CPU {} the load and the servers.\n\
             Slices {}, disturbed by the host or other programs {disturbed}, far {far}.",
            options.rounds,
            lab.dut_cpu,
            lab.load_cpu,
            records.len(),
        );
        if rows.iter().any(falls) {
            println!("MISS: netdevd's connections get slower as closed ones pile up.");
        }
    }
    missing.iter().for_each(|line| println!("{line}"));
    for profile in profiles {
        println!("\n{}", profile.text().trim_end());
    }
    println!("\n{saved}");
    Ok(())
}
