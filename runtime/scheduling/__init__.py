"""Which model call goes to an engine next: a pure object that takes events and gives decisions; time comes in."""
