//! The chain: elements, the endpoint with a task per connection, and the client half
