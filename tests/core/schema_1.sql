BEGIN TRANSACTION;
CREATE TABLE agenda (
	id INTEGER NOT NULL, 
	cycle INTEGER NOT NULL, 
	shares JSON NOT NULL, 
	reason TEXT NOT NULL, 
	provenance VARCHAR NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "agenda" VALUES(1,1,'{"architecture": 0.16666666666666669, "algorithm": 0.3535343209275991, "data": 0.47979901240573425}','best recent gain per candidate: architecture 0, algorithm 0.092, data 0.15','engine');
CREATE TABLE analyses (
	id INTEGER NOT NULL, 
	cycle INTEGER NOT NULL, 
	facts JSON NOT NULL, 
	interpretation TEXT NOT NULL, 
	claims JSON NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "analyses" VALUES(1,0,'{"lines": ["C4 (data, isolated): loss 2.1481, improvement +0.1547", "C3 (algorithm, isolated): loss 2.2105, improvement +0.0923", "C2 (architecture, isolated): loss 2.3656, improvement -0.0627", "C5 (triple, cross): improvement over the baseline +0.2029 on 1 seed", "C5 (triple, full): improvement over the baseline +0.2381 on 2 seeds", "The incumbent is C5."], "gains": {"d75699044103667f79d61dbf09302bece1ea6a916b313669abbd9709a4cef9f8": -0.062732241414861, "896b2ee318ba0f363a9896ea9358a3f46af06e1071411a1adae82324322fce28": 0.09234647196449686, "6f41e647562a4d8530412a4f7524d3a31dff0fbd1071d000ed93fadb7b686669": 0.15474410219005685}}','','[]');
CREATE TABLE candidate_components (
	candidate VARCHAR(64) NOT NULL, 
	domain VARCHAR NOT NULL, 
	component VARCHAR(64) NOT NULL, 
	PRIMARY KEY (candidate, domain), 
	FOREIGN KEY(candidate) REFERENCES candidates (hash), 
	FOREIGN KEY(component) REFERENCES components (hash)
);
INSERT INTO "candidate_components" VALUES('df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d','architecture','a91f76fd93dca9f86ca6dc9d8a4fba6fa94ff5113654d0d01916289586f77b76');
INSERT INTO "candidate_components" VALUES('df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d','algorithm','8be4c1f32c7fd6e3b6d311b4bb24c3946ab19df2d9304b8e9cde6ffc6c0b8710');
INSERT INTO "candidate_components" VALUES('df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d','data','6fb5e8315731ac38b694c97989472eaaf3555b1ea2f597885f9c81aec2d00ff7');
INSERT INTO "candidate_components" VALUES('d75699044103667f79d61dbf09302bece1ea6a916b313669abbd9709a4cef9f8','architecture','853cf951fa16f467c175ba69e879b1673cd7697fddd246f00cc5260e92099eba');
INSERT INTO "candidate_components" VALUES('d75699044103667f79d61dbf09302bece1ea6a916b313669abbd9709a4cef9f8','algorithm','8be4c1f32c7fd6e3b6d311b4bb24c3946ab19df2d9304b8e9cde6ffc6c0b8710');
INSERT INTO "candidate_components" VALUES('d75699044103667f79d61dbf09302bece1ea6a916b313669abbd9709a4cef9f8','data','6fb5e8315731ac38b694c97989472eaaf3555b1ea2f597885f9c81aec2d00ff7');
INSERT INTO "candidate_components" VALUES('896b2ee318ba0f363a9896ea9358a3f46af06e1071411a1adae82324322fce28','architecture','a91f76fd93dca9f86ca6dc9d8a4fba6fa94ff5113654d0d01916289586f77b76');
INSERT INTO "candidate_components" VALUES('896b2ee318ba0f363a9896ea9358a3f46af06e1071411a1adae82324322fce28','algorithm','4791faec38f68d2ab0ccd8bbdf0a1a7280cee73a70e9312a52802b28b427a206');
INSERT INTO "candidate_components" VALUES('896b2ee318ba0f363a9896ea9358a3f46af06e1071411a1adae82324322fce28','data','6fb5e8315731ac38b694c97989472eaaf3555b1ea2f597885f9c81aec2d00ff7');
INSERT INTO "candidate_components" VALUES('6f41e647562a4d8530412a4f7524d3a31dff0fbd1071d000ed93fadb7b686669','architecture','a91f76fd93dca9f86ca6dc9d8a4fba6fa94ff5113654d0d01916289586f77b76');
INSERT INTO "candidate_components" VALUES('6f41e647562a4d8530412a4f7524d3a31dff0fbd1071d000ed93fadb7b686669','algorithm','8be4c1f32c7fd6e3b6d311b4bb24c3946ab19df2d9304b8e9cde6ffc6c0b8710');
INSERT INTO "candidate_components" VALUES('6f41e647562a4d8530412a4f7524d3a31dff0fbd1071d000ed93fadb7b686669','data','ece544114351069bf3305116971a6720647bddb43325da4bda53e73f94c41963');
INSERT INTO "candidate_components" VALUES('b4099b9b587e414318bf4dc4e7b86bd224179532d39a40f0eb83edd753c56129','architecture','a91f76fd93dca9f86ca6dc9d8a4fba6fa94ff5113654d0d01916289586f77b76');
INSERT INTO "candidate_components" VALUES('b4099b9b587e414318bf4dc4e7b86bd224179532d39a40f0eb83edd753c56129','algorithm','4791faec38f68d2ab0ccd8bbdf0a1a7280cee73a70e9312a52802b28b427a206');
INSERT INTO "candidate_components" VALUES('b4099b9b587e414318bf4dc4e7b86bd224179532d39a40f0eb83edd753c56129','data','ece544114351069bf3305116971a6720647bddb43325da4bda53e73f94c41963');
CREATE TABLE candidates (
	id INTEGER NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	cycle INTEGER NOT NULL, 
	origin VARCHAR NOT NULL, 
	domain VARCHAR, 
	parents JSON NOT NULL, 
	edit JSON, 
	hypothesis INTEGER, 
	PRIMARY KEY (id), 
	UNIQUE (hash), 
	FOREIGN KEY(hypothesis) REFERENCES hypotheses (id)
);
INSERT INTO "candidates" VALUES(1,'df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d',0,'baseline',NULL,'[]','null',NULL);
INSERT INTO "candidates" VALUES(2,'d75699044103667f79d61dbf09302bece1ea6a916b313669abbd9709a4cef9f8',0,'random','architecture','["df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d"]','{"params": {"width": 110}, "blocks": [], "files": {}}',1);
INSERT INTO "candidates" VALUES(3,'896b2ee318ba0f363a9896ea9358a3f46af06e1071411a1adae82324322fce28',0,'random','algorithm','["df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d"]','{"params": {"optimizer": "lion", "learning_rate": 0.0248}, "blocks": [], "files": {}}',2);
INSERT INTO "candidates" VALUES(4,'6f41e647562a4d8530412a4f7524d3a31dff0fbd1071d000ed93fadb7b686669',0,'random','data','["df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d"]','{"params": {"deduplicate": true, "filter": 0.121}, "blocks": [], "files": {}}',3);
INSERT INTO "candidates" VALUES(5,'b4099b9b587e414318bf4dc4e7b86bd224179532d39a40f0eb83edd753c56129',0,'cross',NULL,'["df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d", "896b2ee318ba0f363a9896ea9358a3f46af06e1071411a1adae82324322fce28", "6f41e647562a4d8530412a4f7524d3a31dff0fbd1071d000ed93fadb7b686669"]','{"predicted_gain": 0.2470905741545537}',NULL);
CREATE TABLE components (
	hash VARCHAR(64) NOT NULL, 
	domain VARCHAR NOT NULL, 
	params JSON NOT NULL, 
	files JSON NOT NULL, 
	PRIMARY KEY (hash)
);
INSERT INTO "components" VALUES('a91f76fd93dca9f86ca6dc9d8a4fba6fa94ff5113654d0d01916289586f77b76','architecture','{"depth": 2, "width": 64, "mixer": "attention"}','{}');
INSERT INTO "components" VALUES('8be4c1f32c7fd6e3b6d311b4bb24c3946ab19df2d9304b8e9cde6ffc6c0b8710','algorithm','{"optimizer": "sgd", "learning_rate": 0.02, "warmup": 0.0}','{}');
INSERT INTO "components" VALUES('6fb5e8315731ac38b694c97989472eaaf3555b1ea2f597885f9c81aec2d00ff7','data','{"filter": 0.0, "temperature": 3.0, "deduplicate": false}','{}');
INSERT INTO "components" VALUES('853cf951fa16f467c175ba69e879b1673cd7697fddd246f00cc5260e92099eba','architecture','{"depth": 2, "width": 110, "mixer": "attention"}','{}');
INSERT INTO "components" VALUES('4791faec38f68d2ab0ccd8bbdf0a1a7280cee73a70e9312a52802b28b427a206','algorithm','{"optimizer": "lion", "learning_rate": 0.0248, "warmup": 0.0}','{}');
INSERT INTO "components" VALUES('ece544114351069bf3305116971a6720647bddb43325da4bda53e73f94c41963','data','{"filter": 0.121, "temperature": 3.0, "deduplicate": true}','{}');
CREATE TABLE evaluations (
	id INTEGER NOT NULL, 
	candidate VARCHAR(64) NOT NULL, 
	stage VARCHAR NOT NULL, 
	seed INTEGER NOT NULL, 
	cycle INTEGER NOT NULL, 
	status VARCHAR NOT NULL, 
	metrics JSON NOT NULL, 
	failure VARCHAR, 
	message TEXT NOT NULL, 
	usage JSON NOT NULL, 
	seconds FLOAT NOT NULL, 
	finished FLOAT NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT one_evaluation UNIQUE (candidate, stage, seed), 
	FOREIGN KEY(candidate) REFERENCES candidates (hash)
);
INSERT INTO "evaluations" VALUES(1,'df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d','isolated',1000,0,'ok','{"loss": 2.30284327779952, "cost": 0.12}',NULL,'','{}',3.37320000653562601655e-04,1.79565134628282213214e+09);
INSERT INTO "evaluations" VALUES(2,'d75699044103667f79d61dbf09302bece1ea6a916b313669abbd9709a4cef9f8','isolated',1000,0,'ok','{"loss": 2.365575519214381, "cost": 0.2703960311688672}',NULL,'','{}',2.75078000413486734032e-04,1.79565134628484964372e+09);
INSERT INTO "evaluations" VALUES(3,'896b2ee318ba0f363a9896ea9358a3f46af06e1071411a1adae82324322fce28','isolated',1000,0,'ok','{"loss": 2.210496805835023, "cost": 0.12}',NULL,'','{}',1.85705000149027910083e-04,1.79565134628616547584e+09);
INSERT INTO "evaluations" VALUES(4,'6f41e647562a4d8530412a4f7524d3a31dff0fbd1071d000ed93fadb7b686669','isolated',1000,0,'ok','{"loss": 2.148099175609463, "cost": 0.12}',NULL,'','{}',1.81829000212019309401e-04,1.79565134628711652758e+09);
INSERT INTO "evaluations" VALUES(5,'b4099b9b587e414318bf4dc4e7b86bd224179532d39a40f0eb83edd753c56129','cross',1000,0,'ok','{"loss": 2.0263163231789236, "cost": 0.3}',NULL,'','{}',1.24675000733986962586e-04,1.79565134629147624967e+09);
INSERT INTO "evaluations" VALUES(6,'df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d','cross',1000,0,'ok','{"loss": 2.2292325715266093, "cost": 0.3}',NULL,'','{}',2.15209000089089386165e-04,1.79565134629250693328e+09);
INSERT INTO "evaluations" VALUES(7,'6f41e647562a4d8530412a4f7524d3a31dff0fbd1071d000ed93fadb7b686669','cross',1000,0,'ok','{"loss": 2.130278073468341, "cost": 0.3}',NULL,'','{}',2.52193999585870187729e-04,1.79565134629382610318e+09);
INSERT INTO "evaluations" VALUES(8,'df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d','full',1001,0,'ok','{"loss": 1.9513619891742067, "cost": 1.0}',NULL,'','{}',1.20719000733515713363e-04,1.79565134629676914209e+09);
INSERT INTO "evaluations" VALUES(9,'df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d','full',1000,0,'ok','{"loss": 1.9436098573612184, "cost": 1.0}',NULL,'','{}',1.95160000657779164612e-04,1.79565134630208611491e+09);
INSERT INTO "evaluations" VALUES(10,'b4099b9b587e414318bf4dc4e7b86bd224179532d39a40f0eb83edd753c56129','full',1000,0,'ok','{"loss": 1.70941933994026, "cost": 1.0}',NULL,'','{}',2.47207000029447954148e-04,1.79565134630349278448e+09);
INSERT INTO "evaluations" VALUES(11,'b4099b9b587e414318bf4dc4e7b86bd224179532d39a40f0eb83edd753c56129','full',1001,0,'ok','{"loss": 1.70939063349543, "cost": 1.0}',NULL,'','{}',1.80817999535065609961e-04,1.79565134630445027356e+09);
CREATE TABLE evidence (
	id INTEGER NOT NULL, 
	hypothesis INTEGER NOT NULL, 
	cycle INTEGER NOT NULL, 
	candidate VARCHAR(64) NOT NULL, 
	reference VARCHAR(64) NOT NULL, 
	stage VARCHAR NOT NULL, 
	metric VARCHAR NOT NULL, 
	effect FLOAT NOT NULL, 
	low FLOAT, 
	high FLOAT, 
	seeds INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(hypothesis) REFERENCES hypotheses (id), 
	FOREIGN KEY(candidate) REFERENCES candidates (hash), 
	FOREIGN KEY(reference) REFERENCES candidates (hash)
);
INSERT INTO "evidence" VALUES(1,1,0,'d75699044103667f79d61dbf09302bece1ea6a916b313669abbd9709a4cef9f8','df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d','isolated','loss',0.027241211774865,-4.28330035398787056788e-03,5.87657239037178702467e-02,1);
INSERT INTO "evidence" VALUES(2,2,0,'896b2ee318ba0f363a9896ea9358a3f46af06e1071411a1adae82324322fce28','df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d','isolated','loss',-4.010106673552637363e-02,-7.16255788643792440373e-02,-8.57655460667350322268e-03,1);
INSERT INTO "evidence" VALUES(3,3,0,'6f41e647562a4d8530412a4f7524d3a31dff0fbd1071d000ed93fadb7b686669','df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d','isolated','loss',-6.71969750099201124093e-02,-9.87214871387729897556e-02,-3.5672462881067242002e-02,1);
CREATE TABLE hypotheses (
	id INTEGER NOT NULL, 
	"key" VARCHAR NOT NULL, 
	cycle INTEGER NOT NULL, 
	domain VARCHAR NOT NULL, 
	statement TEXT NOT NULL, 
	mechanism VARCHAR NOT NULL, 
	prediction JSON NOT NULL, 
	provenance VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE ("key")
);
INSERT INTO "hypotheses" VALUES(1,'design/0/0',0,'architecture','In the architecture domain, width=110 improves loss.','width','{"metric": "loss", "direction": "decrease", "minimum_effect": 0.005}','random');
INSERT INTO "hypotheses" VALUES(2,'design/0/1',0,'algorithm','In the algorithm domain, optimizer=lion, learning_rate=0.0248 improves loss.','optimizer, learning_rate','{"metric": "loss", "direction": "decrease", "minimum_effect": 0.005}','random');
INSERT INTO "hypotheses" VALUES(3,'design/0/2',0,'data','In the data domain, deduplicate=True, filter=0.121 improves loss.','deduplicate, filter','{"metric": "loss", "direction": "decrease", "minimum_effect": 0.005}','random');
CREATE TABLE hypothesis_events (
	id INTEGER NOT NULL, 
	hypothesis INTEGER NOT NULL, 
	cycle INTEGER NOT NULL, 
	status VARCHAR NOT NULL, 
	reason TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(hypothesis) REFERENCES hypotheses (id)
);
INSERT INTO "hypothesis_events" VALUES(1,1,0,'active','proposed');
INSERT INTO "hypothesis_events" VALUES(2,2,0,'active','proposed');
INSERT INTO "hypothesis_events" VALUES(3,3,0,'active','proposed');
INSERT INTO "hypothesis_events" VALUES(4,1,0,'refuted','loss decrease by 0.5% predicted, measured -2.72% in that direction [-5.88%, +0.43%], 1 seed');
INSERT INTO "hypothesis_events" VALUES(5,2,0,'supported','loss decrease by 0.5% predicted, measured +4.01% in that direction [+0.86%, +7.16%], 1 seed');
INSERT INTO "hypothesis_events" VALUES(6,3,0,'supported','loss decrease by 0.5% predicted, measured +6.72% in that direction [+3.57%, +9.87%], 1 seed');
CREATE TABLE journal (
	id INTEGER NOT NULL, 
	time FLOAT NOT NULL, 
	cycle INTEGER NOT NULL, 
	phase VARCHAR NOT NULL, 
	event VARCHAR NOT NULL, 
	payload JSON NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "journal" VALUES(1,1.79565134625871515271e+09,0,'learn','started','{}');
INSERT INTO "journal" VALUES(2,1.79565134626459217076e+09,0,'learn','done','{"context": ""}');
INSERT INTO "journal" VALUES(3,1.7956513462662196159e+09,0,'design','started','{}');
INSERT INTO "journal" VALUES(4,1.79565134627833271029e+09,0,'design','done','{"admitted": ["d75699044103667f79d61dbf09302bece1ea6a916b313669abbd9709a4cef9f8", "896b2ee318ba0f363a9896ea9358a3f46af06e1071411a1adae82324322fce28", "6f41e647562a4d8530412a4f7524d3a31dff0fbd1071d000ed93fadb7b686669"]}');
INSERT INTO "journal" VALUES(5,1.79565134627947664263e+09,0,'experiment','started','{}');
INSERT INTO "journal" VALUES(6,1.79565134630570220949e+09,0,'experiment','done','{"crossed": ["b4099b9b587e414318bf4dc4e7b86bd224179532d39a40f0eb83edd753c56129", "6f41e647562a4d8530412a4f7524d3a31dff0fbd1071d000ed93fadb7b686669"], "finalists": ["b4099b9b587e414318bf4dc4e7b86bd224179532d39a40f0eb83edd753c56129"], "incumbent": "b4099b9b587e414318bf4dc4e7b86bd224179532d39a40f0eb83edd753c56129"}');
INSERT INTO "journal" VALUES(7,1.79565134630655455589e+09,0,'analyze','started','{}');
INSERT INTO "journal" VALUES(8,1.79565134631683611873e+09,0,'analyze','done','{}');
CREATE TABLE llm_calls (
	id INTEGER NOT NULL, 
	"key" VARCHAR NOT NULL, 
	phase VARCHAR NOT NULL, 
	cycle INTEGER NOT NULL, 
	model VARCHAR NOT NULL, 
	request JSON NOT NULL, 
	response TEXT NOT NULL, 
	finish_reason VARCHAR NOT NULL, 
	prompt_tokens INTEGER NOT NULL, 
	completion_tokens INTEGER NOT NULL, 
	seconds FLOAT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE ("key")
);
CREATE TABLE notes (
	id INTEGER NOT NULL, 
	cycle INTEGER NOT NULL, 
	title TEXT NOT NULL, 
	text TEXT NOT NULL, 
	source TEXT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE proposals (
	id INTEGER NOT NULL, 
	cycle INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	source VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	domain VARCHAR NOT NULL, 
	parent VARCHAR(64) NOT NULL, 
	status VARCHAR NOT NULL, 
	cause TEXT NOT NULL, 
	candidate VARCHAR(64), 
	PRIMARY KEY (id), 
	FOREIGN KEY(parent) REFERENCES candidates (hash), 
	FOREIGN KEY(candidate) REFERENCES candidates (hash)
);
INSERT INTO "proposals" VALUES(1,0,0,0,'random','choice','architecture','df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d','admitted','','d75699044103667f79d61dbf09302bece1ea6a916b313669abbd9709a4cef9f8');
INSERT INTO "proposals" VALUES(2,0,1,0,'random','choice','algorithm','df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d','admitted','','896b2ee318ba0f363a9896ea9358a3f46af06e1071411a1adae82324322fce28');
INSERT INTO "proposals" VALUES(3,0,2,0,'random','choice','data','df26b56b5642e6d36832ecc4ea993c33858c669b15db4c09a3dc04a5c0d48c5d','admitted','','6f41e647562a4d8530412a4f7524d3a31dff0fbd1071d000ed93fadb7b686669');
CREATE TABLE runs (
	id INTEGER NOT NULL, 
	started FLOAT NOT NULL, 
	config JSON NOT NULL, 
	environment JSON NOT NULL, 
	event VARCHAR NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "runs" VALUES(1,1.79565134625049686433e+09,'{"name": "old", "seed": 1, "cycles": 1, "workers": 2, "max_seconds": null, "domains": null, "benchmark": {"name": "synthetic", "options": {}}, "cascade": {"isolated": {"budget": 0.12, "seeds": 1, "time_limit": 120.0}, "cross": {"budget": 0.3, "seeds": 1, "time_limit": 240.0}, "full": {"budget": 1.0, "seeds": 2, "time_limit": 600.0}, "promote": 0.34, "confirm_seeds": 2}, "design": {"proposals": 3, "code_share": 0.2, "random_share": 0.0, "fill": true, "tournament_size": 3, "min_novelty": 0.0}, "novelty": {"k": 5, "structure_weight": 1.0, "code_weight": 0.5}, "llm": {"provider": "none", "base_url": null, "model": null, "api_key_env": "OPENAI_API_KEY", "recording": null, "temperature_design": 0.8, "temperature_analyze": 0.3, "max_tokens": 700, "max_code_tokens": 1400, "max_context_tokens": 1500, "timeout": 120.0, "retries": 4, "threads": 2, "embedded_context": 8192}, "sandbox": {"level": "auto", "memory_mb": 4096, "processes": 64}}','{"python": "3.11.7", "platform": "Linux-6.18.44-fc-v657-x86_64-with-glibc2.36", "processor": "AMD EPYC", "cores": 2, "packages": {"asi-evolve-engine": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6", "faiss-cpu": "1.15.1", "sqlalchemy": "2.1.9", "openai": "3.57.0", "xllamacpp": "2026.10.11549"}, "git": {"commit": "323c4222b19d1cf711a042f911945db73095b096", "clean": false}, "sandbox": {"asked": "auto", "level": "bubblewrap", "promises": "own user, PID, network, IPC, UTS and mount namespaces; read-only Python; private size-limited /tmp", "seccomp": true, "bwrap": "(removed)", "landlock_abi": 7}, "llm": {"provider": "none", "model": null}}','run');
CREATE INDEX journal_by_phase ON journal (cycle, phase, event);
CREATE INDEX candidates_by_cycle ON candidates (cycle);
CREATE INDEX hypothesis_events_by_hypothesis ON hypothesis_events (hypothesis);
CREATE TRIGGER runs_no_update BEFORE UPDATE ON runs BEGIN SELECT RAISE(ABORT, 'runs is append-only'); END;
CREATE TRIGGER runs_no_delete BEFORE DELETE ON runs BEGIN SELECT RAISE(ABORT, 'runs is append-only'); END;
CREATE TRIGGER components_no_update BEFORE UPDATE ON components BEGIN SELECT RAISE(ABORT, 'components is append-only'); END;
CREATE TRIGGER components_no_delete BEFORE DELETE ON components BEGIN SELECT RAISE(ABORT, 'components is append-only'); END;
CREATE TRIGGER hypotheses_no_update BEFORE UPDATE ON hypotheses BEGIN SELECT RAISE(ABORT, 'hypotheses is append-only'); END;
CREATE TRIGGER hypotheses_no_delete BEFORE DELETE ON hypotheses BEGIN SELECT RAISE(ABORT, 'hypotheses is append-only'); END;
CREATE TRIGGER candidates_no_update BEFORE UPDATE ON candidates BEGIN SELECT RAISE(ABORT, 'candidates is append-only'); END;
CREATE TRIGGER candidates_no_delete BEFORE DELETE ON candidates BEGIN SELECT RAISE(ABORT, 'candidates is append-only'); END;
CREATE TRIGGER candidate_components_no_update BEFORE UPDATE ON candidate_components BEGIN SELECT RAISE(ABORT, 'candidate_components is append-only'); END;
CREATE TRIGGER candidate_components_no_delete BEFORE DELETE ON candidate_components BEGIN SELECT RAISE(ABORT, 'candidate_components is append-only'); END;
CREATE TRIGGER proposals_no_update BEFORE UPDATE ON proposals BEGIN SELECT RAISE(ABORT, 'proposals is append-only'); END;
CREATE TRIGGER proposals_no_delete BEFORE DELETE ON proposals BEGIN SELECT RAISE(ABORT, 'proposals is append-only'); END;
CREATE TRIGGER evaluations_no_update BEFORE UPDATE ON evaluations BEGIN SELECT RAISE(ABORT, 'evaluations is append-only'); END;
CREATE TRIGGER evaluations_no_delete BEFORE DELETE ON evaluations BEGIN SELECT RAISE(ABORT, 'evaluations is append-only'); END;
CREATE TRIGGER hypothesis_events_no_update BEFORE UPDATE ON hypothesis_events BEGIN SELECT RAISE(ABORT, 'hypothesis_events is append-only'); END;
CREATE TRIGGER hypothesis_events_no_delete BEFORE DELETE ON hypothesis_events BEGIN SELECT RAISE(ABORT, 'hypothesis_events is append-only'); END;
CREATE TRIGGER evidence_no_update BEFORE UPDATE ON evidence BEGIN SELECT RAISE(ABORT, 'evidence is append-only'); END;
CREATE TRIGGER evidence_no_delete BEFORE DELETE ON evidence BEGIN SELECT RAISE(ABORT, 'evidence is append-only'); END;
CREATE TRIGGER agenda_no_update BEFORE UPDATE ON agenda BEGIN SELECT RAISE(ABORT, 'agenda is append-only'); END;
CREATE TRIGGER agenda_no_delete BEFORE DELETE ON agenda BEGIN SELECT RAISE(ABORT, 'agenda is append-only'); END;
CREATE TRIGGER analyses_no_update BEFORE UPDATE ON analyses BEGIN SELECT RAISE(ABORT, 'analyses is append-only'); END;
CREATE TRIGGER analyses_no_delete BEFORE DELETE ON analyses BEGIN SELECT RAISE(ABORT, 'analyses is append-only'); END;
CREATE TRIGGER llm_calls_no_update BEFORE UPDATE ON llm_calls BEGIN SELECT RAISE(ABORT, 'llm_calls is append-only'); END;
CREATE TRIGGER llm_calls_no_delete BEFORE DELETE ON llm_calls BEGIN SELECT RAISE(ABORT, 'llm_calls is append-only'); END;
CREATE TRIGGER notes_no_update BEFORE UPDATE ON notes BEGIN SELECT RAISE(ABORT, 'notes is append-only'); END;
CREATE TRIGGER notes_no_delete BEFORE DELETE ON notes BEGIN SELECT RAISE(ABORT, 'notes is append-only'); END;
CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'journal is append-only'); END;
CREATE TRIGGER journal_no_delete BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'journal is append-only'); END;
COMMIT;
PRAGMA user_version = 1;
