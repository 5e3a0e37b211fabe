"""To and from a PACS: objects that arrive by C-STORE or are fetched by DICOMweb, and results that are sent back."""
