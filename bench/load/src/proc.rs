//! What processes used, by /proc.

use std::collections::HashMap;
use std::fs;

/// CPU time, user and system, in ticks.
pub struct Usage {
    server: u64,
    own: u64,
    foreign: u64,
}

/// Between two of them.
pub struct Used {
    pub server: f64,
    pub own: f64,
    /// By everybody else on the machine, the kernel's own threads excepted: they work for the server, too.
    pub foreign: f64,
}

struct Process {
    parent: i32,
    ticks: u64,
    /// With the children that it has waited for: those that came and went between two readings are in there.
    with_ended: u64,
}

impl Usage {
    pub fn read(server: i32) -> Self {
        let processes = processes();
        let own = std::process::id() as i32;
        let mut usage = Self { server: 0, own: 0, foreign: 0 };
        for (pid, process) in &processes {
            // Kernel threads are children of 2.
            if under(&processes, *pid, server) {
                usage.server += process.ticks;
            } else if under(&processes, *pid, own) {
                usage.own += process.ticks;
            } else if !under(&processes, *pid, 2) {
                usage.foreign += process.with_ended;
            }
        }
        usage
    }

    pub fn until(&self, later: &Self) -> Used {
        let seconds =
            |a: u64, b: u64| b.saturating_sub(a) as f64 / rustix::param::clock_ticks_per_second() as f64;
        Used {
            server: seconds(self.server, later.server),
            own: seconds(self.own, later.own),
            foreign: seconds(self.foreign, later.foreign),
        }
    }
}

/// Proportional set size of a process tree, in KiB.
pub fn memory(root: i32) -> u64 {
    let processes = processes();
    let pids = processes.keys().filter(|pid| under(&processes, **pid, root));
    let sizes = pids.filter_map(|pid| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    sizes.sum()
}

/// What the kernel has allocated for itself, most of all for sockets, in KiB.
pub fn kernel_memory() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let slab =
        meminfo.lines().find_map(|line| line.strip_prefix("Slab:")?.trim().strip_suffix(" kB")?.parse().ok());
    slab.unwrap_or_default()
}

fn under(processes: &HashMap<i32, Process>, mut pid: i32, root: i32) -> bool {
    while pid != root {
        match processes.get(&pid) {
            Some(process) if process.parent > 0 => pid = process.parent,
            _ => return false,
        }
    }
    true
}

fn processes() -> HashMap<i32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect()
}

/// proc_pid_stat(5). The name in the parentheses may contain anything.
fn parse(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    // The state, field 3, comes first.
    let field = |n: usize| fields.get(n - 3)?.parse::<i64>().ok();
    let ticks = (field(14)? + field(15)?) as u64;
    let ended = (field(16)? + field(17)?).max(0) as u64;
    Some(Process { parent: field(4)? as i32, ticks, with_ended: ticks + ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let fields = "S 7 1 1 0 -1 0 0 0 0 0 11 22 3 4 20 0 1";
        let process = parse(&format!("9 (a) (b) {fields}")).unwrap();
        assert_eq!((process.parent, process.ticks, process.with_ended), (7, 33, 40));
    }

    #[test]
    fn this_process_has_memory_and_is_its_own() {
        let own = std::process::id() as i32;
        assert!(memory(own) > 0);
        assert!(under(&processes(), own, own));
    }
}
