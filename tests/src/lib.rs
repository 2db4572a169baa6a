//! The harness of the black-box tests: a daemon under test, a QMP client, network namespaces.
