"""The MCP server that the agent asks for changes."""
