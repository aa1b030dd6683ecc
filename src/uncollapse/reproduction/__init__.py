"""The papers' tables and figures: what they print beside what anyone can measure again."""
