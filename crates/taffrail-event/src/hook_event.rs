//! The hook events that Claude Code is known to send (client 2.1.330, 31 of them).
//!
//! An unknown name is not an error: it is kept as [`HookEvent::Unknown`] and stored under its own name.

macro_rules! hook_events {
    ($($name:ident),* $(,)?) => {
        /// A hook event by its name in `hook_event_name`.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum HookEvent {
            $(#[allow(missing_docs, reason = "the names are Claude Code's own")] $name,)*
            /// A name this version does not know, as it came.
            Unknown(String),
        }

        impl HookEvent {
            /// Every known event, in the order of Claude Code's documentation.
            pub const KNOWN: &[HookEvent] = &[$(HookEvent::$name),*];

            /// The event of that name; never fails.
            pub fn from_name(name: &str) -> Self {
                match name {
                    $(stringify!($name) => Self::$name,)*
                    other => Self::Unknown(other.to_owned()),
                }
            }

            /// The name as Claude Code writes it.
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    Self::Unknown(name) => name,
                }
            }
        }
    };
}

hook_events!(
    SessionStart,
    Setup,
    UserPromptSubmit,
    UserPromptExpansion,
    PreToolUse,
    PermissionRequest,
    PermissionDenied,
    PostToolUse,
    PostToolUseFailure,
    PostToolBatch,
    Notification,
    MessageDisplay,
    SubagentStart,
    SubagentStop,
    TaskCreated,
    TaskCompleted,
    Stop,
    StopFailure,
    TeammateIdle,
    InstructionsLoaded,
    ConfigChange,
    CwdChanged,
    DirectoryAdded,
    FileChanged,
    WorktreeCreate,
    WorktreeRemove,
    PreCompact,
    PostCompact,
    Elicitation,
    ElicitationResult,
    SessionEnd,
);

impl HookEvent {
    /// Whether Claude Code waits for an answer to this event that could change what it does.
    pub fn takes_verdict(&self) -> bool {
        matches!(
            self,
            Self::PreToolUse
                | Self::UserPromptSubmit
                | Self::PermissionRequest
                | Self::Stop
                | Self::SubagentStop
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_31_events_are_known_and_names_round_trip() {
        assert_eq!(HookEvent::KNOWN.len(), 31);
        for event in HookEvent::KNOWN {
            assert_eq!(&HookEvent::from_name(event.name()), event);
        }
        assert_eq!(HookEvent::from_name("NewThing").name(), "NewThing");
    }
}
