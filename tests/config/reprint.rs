//! A configuration that another program has written anew: shared by tests/config_errors.rs and the fuzz target `config`.

use std::path::Path;

use doorward::config::checked::Config;
use doorward::config::{ConfigErrors, parse};

/// Loads the configuration, and loads it again as another TOML writer prints it: it must be the same one.
pub(crate) fn parse_twice(text: &str, file: &Path) -> Result<Config, ConfigErrors> {
    let config = parse(text, file)?;
    let table: toml::Table = toml::from_str(text).expect("accepted, and no TOML");
    if let Ok(printed) = toml::to_string(&table) {
        let again = parse(&printed, file).expect("the same configuration, printed anew");
        assert_eq!(facts(&config), facts(&again), "{printed}");
    }
    Ok(config)
}

/// Everything in it but for what names lines of the text or times of files, in an order of its own: sets have none.
fn facts(config: &Config) -> Vec<String> {
    let mut config = Config { warnings: Vec::new(), seen: Default::default(), ..config.clone() };
    let entries = config.routes.iter_mut().flat_map(|route| &mut route.allow_entries);
    let lines = entries.map(|entry| &mut entry.line);
    for line in lines.chain(config.expectations.iter_mut().map(|expectation| &mut expectation.line)) {
        *line = None;
    }
    let mut lines: Vec<String> = format!("{config:#?}").lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}
