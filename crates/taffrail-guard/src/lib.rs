//! Shell and path analysis: rules to a verdict; pure.
