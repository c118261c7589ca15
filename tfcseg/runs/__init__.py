"""Process one video from its first frame to its report, resumably."""
