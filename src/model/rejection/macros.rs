//! The macros that make enums and their total matches of the tables.

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $stage:ident, $label:literal, $side:ident, $alert:expr, $cost:literal; )+) => {
        /// Why a connection was rejected. Closed: every rejection has exactly one of these, and the labels are
        /// what dashboards and alerts rely on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl Reason {
            /// Every reason, in the order of the journey.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// The stage that rejects for this reason.
            pub const fn stage(self) -> Stage {
                match self { $( Self::$variant => Stage::$stage, )+ }
            }

            /// The `reason` label; unique within its stage.
            pub const fn label(self) -> &'static str {
                match self { $( Self::$variant => $label, )+ }
            }

            /// Who brought it about.
            pub const fn side(self) -> Side {
                match self { $( Self::$variant => Side::$side, )+ }
            }

            /// The alert that tells the client, where the stage leaves one the chance to. rustls may choose a
            /// more precise one for `malformed` and `misbehaved`.
            pub const fn alert(self) -> Option<Alert> {
                match self { $( Self::$variant => $alert, )+ }
            }

            /// What it costs the source (`limits.penalties`); it has passed after as much time.
            pub const fn cost(self) -> Duration {
                match self { $( Self::$variant => Duration::from_secs($cost), )+ }
            }
        }
    };
}

macro_rules! causes {
    ($( $(#[doc = $doc:literal])+ $variant:ident $(($($part:ty),+))? $({ $($(#[doc = $field_doc:literal])+ $field:ident: $type:ty),+ })? = $reason:ident; )+) => {
        /// What happened to a rejected connection, with the data that a person needs. Closed. What another party chose in it
        /// is escaped and bounded.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Cause {
            $( $(#[doc = $doc])+ $variant $(($($part),+))? $({ $($(#[doc = $field_doc])+ $field: $type),+ })?, )+
            /// The connection was told to end, before payload moved, as a session is told to.
            Ordered(CloseReason),
        }

        impl Cause {
            /// The reason that it is counted as.
            pub const fn reason(&self) -> Reason {
                match self {
                    $( Self::$variant { .. } => Reason::$reason, )+
                    Self::Ordered(order) => of_order(*order),
                }
            }

            /// The names of all variants.
            #[cfg(test)]
            pub(crate) const NAMES: &'static [&'static str] = &[ $( stringify!($variant), )+ "Ordered" ];
        }
    };
}
