//! Services that a registry names, beside those of the files: compiled together with them by the same
//! rules. One that is not right is left out with the reason; it never keeps the rest from serving.

use crate::{
    compile::Compiler,
    config::{Diagnostics, DiscoveredServices, Loaded, Severity},
    snapshot::Snapshot,
    state::consul::Skipped,
};

/// The files and what of the services goes with them.
#[derive(Debug)]
pub(super) struct Together {
    pub(super) snapshot: Snapshot,
    pub(super) diagnostics: Diagnostics,
    /// In the order of the services.
    pub(super) skipped: Vec<Skipped>,
}

/// Compiles what `assemble` puts together with as many of `services` as are right. `None` if the files are not.
pub(super) fn compile(
    compiler: &Compiler,
    assemble: impl Fn(&DiscoveredServices) -> Loaded,
    services: &DiscoveredServices,
) -> Option<Together> {
    let mut services = services.clone();
    let mut skipped = Vec::new();
    // Each further round has at least one service less.
    loop {
        let loaded = assemble(&services);
        let Loaded {
            config,
            mut diagnostics,
            discovered,
            skipped: unreadable,
            ..
        } = loaded;
        for (service, reason) in unreadable {
            services.remove(&service);
            skipped.push(Skipped { service, reason });
        }
        if let Some(snapshot) = compiler.compile(&config, &mut diagnostics) {
            skipped.sort_by(|left, right| left.service.cmp(&right.service));
            return Some(Together {
                snapshot,
                diagnostics,
                skipped,
            });
        }
        let wrong = blamed(&discovered, &diagnostics);
        if wrong.is_empty() {
            return None;
        }
        for skip in wrong {
            services.remove(&skip.service);
            skipped.push(skip);
        }
    }
}

/// The services that have a mistake, each with its first one.
fn blamed(discovered: &[(u16, String)], diagnostics: &Diagnostics) -> Vec<Skipped> {
    let mut wrong: Vec<Skipped> = Vec::new();
    for diagnostic in diagnostics.sorted() {
        if diagnostic.severity != Severity::Error {
            continue;
        }
        let service = discovered
            .iter()
            .find(|(file, _)| *file == diagnostic.span.file);
        if let Some((_, service)) = service
            && !wrong.iter().any(|skipped| skipped.service == *service)
        {
            wrong.push(Skipped {
                service: service.clone(),
                reason: format!("{}: {}", diagnostic.path, diagnostic.message),
            });
        }
    }
    wrong
}
