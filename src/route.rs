//! Stage 3b: the route of a server name. A pure lookup.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::names::{ServerName, ServerNamePattern};
use crate::model::rejection::Reason;

/// Maps server names to routes, by hash lookups.
#[derive(Debug)]
pub struct RouteTable<R> {
    exact: HashMap<ServerName, Arc<R>>,
    /// By the name without its first label: a wildcard stands for exactly one label.
    wildcard: HashMap<ServerName, Arc<R>>,
    default: Option<Arc<R>>,
}

impl<R> Default for RouteTable<R> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), default: None }
    }
}

impl<R> RouteTable<R> {
    /// Adds a pattern. The configuration check rejects duplicate patterns.
    pub fn insert(&mut self, pattern: ServerNamePattern, route: Arc<R>) {
        match pattern {
            ServerNamePattern::Exact(name) => {
                self.exact.insert(name, route);
            }
            ServerNamePattern::Wildcard(name) => {
                self.wildcard.insert(name, route);
            }
            ServerNamePattern::Default => self.default = Some(route),
        }
    }

    /// The route for a client's server name: the exact name first, then the wildcard, then the default route.
    pub fn find(&self, server_name: Option<&ServerName>) -> Result<&Arc<R>, Reason> {
        let Some(name) = server_name else {
            return self.default.as_ref().ok_or(Reason::ServerNameMissing);
        };
        self.exact
            .get(name)
            .or_else(|| self.wildcard.get(name.parent()?))
            .or(self.default.as_ref())
            .ok_or(Reason::ServerNameUnknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(patterns: &[&str]) -> RouteTable<String> {
        let mut table = RouteTable::default();
        for text in patterns {
            let pattern = ServerNamePattern::parse(text).expect("a pattern");
            table.insert(pattern, Arc::new((*text).to_owned()));
        }
        table
    }

    fn find(table: &RouteTable<String>, name: &str) -> Result<String, Reason> {
        let name = ServerName::from_client_hello(name);
        table.find(Some(&name)).map(|route| route.to_string())
    }

    #[test]
    fn exact_name_wins_over_wildcard_over_default() {
        let table = table(&["nas.x.example", "*.x.example", "*"]);
        assert_eq!(find(&table, "nas.x.example"), Ok("nas.x.example".into()));
        assert_eq!(find(&table, "ssh.x.example"), Ok("*.x.example".into()));
        assert_eq!(find(&table, "other.example"), Ok("*".into()));
        assert_eq!(table.find(None).map(|route| route.to_string()), Ok("*".into()));
    }

    #[test]
    fn unknown_name_without_default_route_is_rejected() {
        let table = table(&["nas.x.example", "*.x.example"]);
        assert_eq!(find(&table, "x.example"), Err(Reason::ServerNameUnknown), "a wildcard is not its own parent");
        assert_eq!(find(&table, "a.b.x.example"), Err(Reason::ServerNameUnknown), "a wildcard is one label");
        assert_eq!(find(&table, "evilnas.x.example.evil"), Err(Reason::ServerNameUnknown));
        assert_eq!(find(&table, "example"), Err(Reason::ServerNameUnknown));
        assert_eq!(table.find(None), Err(Reason::ServerNameMissing));
    }
}
