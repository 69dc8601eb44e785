//! What a flow does when the path or the application changes.
