"""Where is a secret in what leaves?"""
