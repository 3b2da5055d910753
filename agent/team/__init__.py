"""A CEO and its experts: a LangGraph graph whose every call is a trajectory."""
